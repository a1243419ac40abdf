package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// serving runs a whole node on real sockets until the test ends.
func serving(t *testing.T) *node {
	t.Helper()
	data := t.TempDir()
	n, err := openNode(t.Context(), config{
		Data: data, Listen: "127.0.0.1:0", HooksListen: "127.0.0.1:0", NATSListen: "127.0.0.1:0",
		Bucket: "file://" + filepath.Join(data, "bucket"), Roles: []string{roleOrchestrator, roleIngress, roleAPI},
		Sim: sim.Config{Seed: 1, Latency: sim.Range{Min: 20 * time.Millisecond, Max: 50 * time.Millisecond}},
	}, wires{}, newLogger(t.Output(), false))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- n.run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		n.close()
	})
	<-ready
	return n
}

func (n *node) password(t *testing.T) string {
	t.Helper()
	p, err := readSecret(filepath.Join(n.cfg.Data, "nats-requester.password"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// natsCLI is the real command line client, of this version. It is built once a
// machine, with -tags long, and the test is skipped aloud where it is not there.
func natsCLI(t *testing.T) string {
	t.Helper()
	const version = "v0.5.1"
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("SKIPPED: no place to build the nats command in: %v", err)
	}
	dir := filepath.Join(cache, "genstream-test", "nats-"+version)
	path := filepath.Join(dir, "nats")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if !long {
		t.Skip("SKIPPED: the nats command is not built yet: go test -tags long builds it, in a minute or more")
	}
	build := exec.Command("go", "install", "github.com/nats-io/natscli/nats@"+version)
	build.Dir = t.TempDir() // outside the module
	build.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: the nats command cannot be built here: %v\n%s", err, out)
	}
	return path
}

// The four things that a service does, and how it is told what it did wrong, with
// a tool that knows nothing of genstream.
func TestNATSCommandLine(t *testing.T) {
	t.Parallel()
	cli, n := natsCLI(t), serving(t)
	nats := func(args ...string) (out, told string, err error) {
		cmd := exec.CommandContext(t.Context(), cli, append([]string{"--server", n.server.URL(), "--user", "requester", "--password", n.password(t)}, args...)...)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+n.cfg.Data)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err = cmd.Run()
		return strings.TrimSpace(stdout.String()), stderr.String(), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, told, err := nats(args...)
		if err != nil || strings.Contains(told, "Nats-Service-Error") {
			t.Fatalf("nats %v: %v\n%s%s", args, err, out, told)
		}
		return out
	}
	completed := func(id string) events.View {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			out, _, err := nats("req", "genstream.generations.get", id, "--raw")
			var g events.View
			if err == nil && json.Unmarshal([]byte(out), &g) == nil && !g.CompletedAt.IsZero() {
				return g
			}
			if time.Now().After(deadline) {
				t.Fatalf("generation=%s is not completed: %s, %v", id, out, err)
			}
		}
	}
	const create, body = "genstream.generations.create", `{"model":"sim:fox@1","count":2,"input":{"positivePrompt":"a fox"}}`
	id := uuid.Must(uuid.NewV7()).String()
	first := must("req", create, body, "-H", "Gen-Id:"+id, "--raw")
	if !regexp.MustCompile(`^\{"id":"` + id + `","position":\d+\}$`).MatchString(first) {
		t.Errorf("create: %s", first)
	}
	if again := must("req", create, body, "-H", "Gen-Id:"+id, "--raw"); again != first {
		t.Errorf("the same request again: %s, was %s", again, first)
	}
	if g := completed(id); len(g.Outputs) != 2 || g.Outputs[1].Artifact == nil {
		t.Errorf("get: %+v", g)
	}
	for name, c := range map[string]struct{ body, code, field string }{
		"a count":         {`{"model":"sim:fox@1","count":99,"input":{"positivePrompt":"a fox"}}`, "422", "body.count"},
		"an unknown name": {`{"modell":"sim:fox@1","input":{}}`, "422", "body.modell"},
		"no JSON":         {`{{`, "400", "body"},
	} {
		out, told, _ := nats("req", create, c.body)
		if !strings.Contains(told, "Nats-Service-Error-Code: "+c.code) || !strings.Contains(out, `"location":"`+c.field+`"`) {
			t.Errorf("%s: %s%s\nwant %s and %s", name, out, told, c.code, c.field)
		}
	}
	if out, told, _ := nats("req", create, strings.Replace(body, "a fox", "another", 1), "-H", "Gen-Id:"+id); !strings.Contains(told, "Code: 422") || !strings.Contains(out, "problem:reused") {
		t.Errorf("another request under the same ID: %s%s", out, told)
	}
	submitted := uuid.Must(uuid.NewV7()).String()
	must("pub", "genstream.submit", body, "-H", "Gen-Id:"+submitted)
	if g := completed(submitted); len(g.Outputs) != 2 {
		t.Errorf("submitted: %+v", g)
	}
	for _, args := range [][]string{{"pub", "gen." + id, "x"}, {"sub", "gen.>", "--count=1", "--timeout=1s"}, {"stream", "ls"}} {
		if out, told, err := nats(args...); err == nil || !strings.Contains(strings.ToLower(told), "permissions violation") {
			t.Errorf("nats %v as requester: %v, %s%s", args, err, out, told)
		}
	}
}

// The service of docs/service.md is built as it stands there, and run.
func TestProgramOfTheDocumentation(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/service.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```go\n")
	source, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/service.md has no Go in it")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), filepath.Join(dir, "main.go"))
	build.Dir = "../.." // for the libraries' versions
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := serving(t)
	for range 2 { // it has lost its place after the first: the same order is not made twice
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "program"))
		cmd.Env = append(os.Environ(), "NATS_URL="+n.server.URL(), "NATS_PASSWORD="+n.password(t), "GENSTREAM_API=http://"+n.api.Addr().String())
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "completed "); !ok || err != nil {
			t.Errorf("it says %q, %v", line, err)
		} else if _, err := events.ParseID(id); err != nil {
			t.Error(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	}
	counts, err := n.projector.Current().Counts(t.Context())
	if err != nil || counts.Generations != 1 {
		t.Errorf("%d generations, %v; want the one that was ordered twice", counts.Generations, err)
	}
}

// A backup is the log, then the files; what is restored from it is whole.
func TestBackupOfADataDirectoryIsWhole(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	copies := regexp.MustCompile(`(?m)^cp -a .*$`).FindAllString(string(text), -1)
	if len(copies) != 2 {
		t.Fatalf("docs/operations.md says %v", copies)
	}
	for _, line := range copies { // word for word
		sh := exec.Command("sh", "-ec", strings.NewReplacer("genstream-data", w.data, "/backup/", dir).Replace(line))
		if out, err := sh.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	for _, verb := range []string{"rebuild", "verify"} {
		var out bytes.Buffer
		if code := run([]string{verb, "--data", dir}, &out, &out); code != 0 {
			t.Errorf("%s: exit %d: %s", verb, code, out.String())
		}
	}
	file, err := os.ReadFile(catalogFile(t, dir))
	if err != nil || !bytes.Contains(file, []byte("sim:fox@1")) {
		t.Errorf("the restored catalog is empty: %v", err)
	}
}

// The streams are backed up and restored as docs/operations.md says.
func TestBackupOfTheStreamsIsTheSameLog(t *testing.T) {
	t.Parallel()
	cli := natsCLI(t)
	server := func() *natsd.Server {
		s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), MaxStore: 1 << 30, Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	one, other := server(), server()
	l, err := stream.Open(t.Context(), one.Conn(), stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	id := streamtest.NewID()
	if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`for s in ([A-Z ]+); do nats backup stream`).FindStringSubmatch(string(text))
	if names == nil {
		t.Fatal("docs/operations.md names no streams")
	}
	dir := t.TempDir()
	for name := range strings.FieldsSeq(names[1]) {
		for _, args := range [][]string{
			{"--server", one.URL(), "--user", "admin", "--password", "a", "backup", "stream", name, filepath.Join(dir, name)},
			{"--server", other.URL(), "--user", "admin", "--password", "a", "backup", "restore", "stream", filepath.Join(dir, name)},
		} {
			cmd := exec.CommandContext(t.Context(), cli, args...)
			cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("nats %v: %v\n%s", args[6:], err, out)
			}
		}
	}
	restored, err := stream.Open(t.Context(), other.Conn(), stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if restored.Fingerprint() != l.Fingerprint() || restored.Durable() != 1 {
		t.Errorf("restored is %s up to %d, want %s up to 1", restored.Fingerprint(), restored.Durable(), l.Fingerprint())
	}
	if g, _, err := restored.Load(t.Context(), id); err != nil || g.ID != id {
		t.Errorf("the generation is not restored: %v", err)
	}
}

// catalogFile is the catalog that serves, as docs/operations.md finds it.
func catalogFile(t *testing.T, data string) string {
	t.Helper()
	name, err := os.ReadFile(filepath.Join(data, catalogDir, "CURRENT"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(data, catalogDir, strings.TrimSpace(string(name)))
}

// The queries of docs/operations.md are asked with the sqlite3 shell, beside a
// server that has the catalog open.
func TestCatalogOpensInTheSQLiteShell(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("SKIPPED: there is no sqlite3 command on this machine")
	}
	n := serving(t)
	c := &client{base: "http://" + n.api.Addr().String(), http: &http.Client{}}
	body := []byte(`{"model":"sim:fox@1","count":3,"input":{"positivePrompt":"a fox"},"labels":{"user":"42"}}`)
	if err := c.run(t.Context(), body, time.Minute, false, "", io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	end, err := n.stream.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.projector.Wait(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```sql\n")
	queries, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/operations.md has no SQL in it")
	}
	ask := func(query string) string {
		t.Helper()
		cmd := exec.Command(shell, "-readonly", "-bail", catalogFile(t, n.cfg.Data))
		cmd.Stdin = strings.NewReader(query)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v: %s", query, err, out)
		}
		return string(out)
	}
	if out := ask(queries); !strings.Contains(out, "sim:fox@1|3|0.0") || strings.Count(out, "|sim:fox@1|3\n") != 2 {
		t.Errorf("the queries of docs/operations.md answer\n%s", out)
	}
	if out := ask("pragma integrity_check; pragma foreign_key_check;"); out != "ok\n" {
		t.Errorf("integrity: %s", out)
	}
	// A hand that slips writes nothing, even without -readonly.
	out, err := exec.Command(shell, catalogFile(t, n.cfg.Data), "delete from generations").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "never deleted") {
		t.Errorf("a delete: %v, %s", err, out)
	}
}

// The OpenAPI document, by the linter that others use.
func TestOpenAPIDocumentIsValid(t *testing.T) {
	if !long {
		t.Skip("SKIPPED: redocly is fetched by npm only with -tags long; projector/api checks the document in its own tests")
	}
	npx, err := exec.LookPath("npx")
	if err != nil {
		t.Skip("SKIPPED: there is no npx command on this machine")
	}
	n := serving(t)
	res, err := http.Get("http://" + n.api.Addr().String() + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "openapi.json"), body, 0o600); err != nil {
		t.Fatal(err)
	}
	lint := exec.CommandContext(t.Context(), npx, "--yes", "@redocly/cli@2.77.0", "lint", "--extends=spec", "openapi.json")
	lint.Dir = dir
	lint.Env = append(os.Environ(), "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
	out, err := lint.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && bytes.Contains(out, []byte("openapi.json")):
		t.Errorf("%s", out)
	default:
		t.Skipf("SKIPPED: redocly cannot be had here: %v\n%s", err, out)
	}
}
