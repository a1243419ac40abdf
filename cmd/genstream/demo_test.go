package main

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// runDemo runs the demo to its end, on real sockets and real time.
func runDemo(t *testing.T, data string, more ...string) (out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	began := time.Now()
	args := append([]string{"demo", "--exit", "--data", data, "--listen", "127.0.0.1:0", "--hooks-listen", "127.0.0.1:0"}, more...)
	if code := run(args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d\n%s\n%s", code, stdout.String(), stderr.String())
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s, want at most 20 s", took)
	}
	if stderr.Len() > 0 {
		t.Errorf("it complains:\n%s", stderr.String())
	}
	return stdout.String()
}

func TestDemoTellsWhatItMade(t *testing.T) {
	t.Parallel()
	data := filepath.Join(fastDir(t), "data")
	out := runDemo(t, data)
	for _, want := range []string{data, "provider is simulated", "3 generations, 6 artifacts, 6 files", "I24"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "BROKEN") || strings.Contains(out, "skipped") {
		t.Errorf("a check failed or was left out:\n%s", out)
	}
}

// demoSays is the part of `demo --json` that the reader checks, in the contract's
// words and not in genstream's types.
type demoSays struct {
	Data        string
	Simulated   bool
	Generations []struct {
		ID            string
		Model         string
		ExpectedCount int `json:"expected_count"`
		Error         *struct{ Code string }
		Outputs       []struct {
			Slot     int
			Error    *struct{ Code string }
			Artifact *struct {
				ID      string
				BlobKey string `json:"blob_key"`
				Size    int64
				SHA256  string
				Seed    string
				Cost    json.Number
			}
		}
	}
	Totals struct {
		Commits, Events, Generations, Artifacts, Files int
		Cost                                           json.Number
	}
	Checks struct {
		Claims []struct {
			Invariant, Skipped string
			Looked, Count      int
		}
	}
}

// billionths is a number of dollars, exactly.
func billionths(t *testing.T, dollars json.Number) int64 {
	t.Helper()
	r, ok := new(big.Rat).SetString(dollars.String())
	if !ok || !r.Mul(r, big.NewRat(1e9, 1)).IsInt() {
		t.Fatalf("%q is no number of dollars", dollars)
	}
	return r.Num().Int64()
}

// A reader that shares no code with genstream finds in the stored data what the
// demo says is there.
func TestReaderOfItsOwnFindsWhatTheDemoSays(t *testing.T) {
	t.Parallel()
	data := filepath.Join(fastDir(t), "data")
	var says demoSays
	if err := json.Unmarshal([]byte(runDemo(t, data, "--json", "--seed", "5")), &says); err != nil {
		t.Fatal(err)
	}
	if says.Data != data || !says.Simulated || len(says.Generations) != 3 || len(says.Checks.Claims) == 0 {
		t.Errorf("it says %+v", says)
	}
	for _, c := range says.Checks.Claims {
		if c.Looked == 0 || c.Count != 0 || c.Skipped != "" {
			t.Errorf("%s: looked at %d, found %d, skipped %q", c.Invariant, c.Looked, c.Count, c.Skipped)
		}
	}
	log, rows := readLog(t, filepath.Join(data, "nats")), readRows(t, filepath.Join(data, "catalog"))
	sums := readFiles(t, filepath.Join(data, "bucket"))

	var cost int64
	artifacts := 0
	for _, g := range says.Generations {
		l, row := log.generations[g.ID], rows.generations[g.ID]
		if l == nil || l.model != g.Model || l.count != g.ExpectedCount || !l.completed || l.failed != (g.Error != nil) {
			t.Fatalf("generation=%s: the log has %+v, the demo says %+v", g.ID, l, g)
		}
		good := 0
		for _, o := range g.Outputs {
			a := o.Artifact
			if a == nil {
				if o.Error == nil || l.errors[o.Slot] != o.Error.Code {
					t.Errorf("generation=%s slot=%d: the log has error %q, the demo says %+v", g.ID, o.Slot, l.errors[o.Slot], o.Error)
				}
				continue
			}
			good++
			cost += billionths(t, a.Cost)
			want := artifactOf{a.ID, a.BlobKey, a.SHA256, a.Seed, a.Size, billionths(t, a.Cost)}
			if have := l.artifacts[o.Slot]; have != want {
				t.Errorf("generation=%s slot=%d: the log has %+v, the demo says %+v", g.ID, o.Slot, have, want)
			}
			if have := rows.artifacts[a.ID]; have != (artifactOf{a.ID, a.BlobKey, "", a.Seed, 0, want.cost}) {
				t.Errorf("artifact %s: the row has %+v, the demo says %+v", a.ID, have, want)
			}
			if have := sums[a.BlobKey]; have != (sumOf{a.SHA256, a.Size}) {
				t.Errorf("%s: the file has %+v, the demo says %+v", a.BlobKey, have, want)
			}
		}
		artifacts += good
		if row == nil || *row != good || good != len(l.artifacts) || good+len(l.errors) != g.ExpectedCount {
			t.Errorf("generation=%s: %d artifacts, the row has %v, the log %d and %d errors", g.ID, good, row, len(l.artifacts), len(l.errors))
		}
	}
	if g := says.Generations; g[0].Error != nil || g[2].Error == nil || artifacts != 6 {
		t.Errorf("success, a part, failure: %+v", g)
	}
	told := says.Totals
	if told.Commits != log.commits || told.Events != log.events || told.Generations != len(log.generations) || told.Generations != len(rows.generations) {
		t.Errorf("the log has %d commits, %d events, %d generations, the catalog %d; the demo says %+v",
			log.commits, log.events, len(log.generations), len(rows.generations), told)
	}
	if told.Artifacts != artifacts || told.Artifacts != len(rows.artifacts) || told.Files != len(sums) {
		t.Errorf("%d artifacts, %d rows, %d files, the demo says %+v", artifacts, len(rows.artifacts), len(sums), told)
	}
	if c := billionths(t, told.Cost); c != cost || c != rows.cost || c != log.cost {
		t.Errorf("cost %d, in rows %d, in the log %d, the demo says %s", cost, rows.cost, log.cost, told.Cost)
	}
}

type artifactOf struct {
	id, key, sha256, seed string
	size, cost            int64
}

type generationOf struct {
	model             string
	count             int
	completed, failed bool
	artifacts         map[int]artifactOf
	errors            map[int]string
}

type logOf struct {
	commits, events int
	cost            int64
	generations     map[string]*generationOf
}

// readLog reads every message of the stream with a server and a client of NATS's.
func readLog(t *testing.T, dir string) logOf {
	t.Helper()
	s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "GENERATIONS")
	if err != nil {
		t.Fatal(err)
	}
	l := logOf{generations: map[string]*generationOf{}}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Events []map[string]any }
		d := json.NewDecoder(bytes.NewReader(m.Data))
		d.UseNumber()
		if err := d.Decode(&body); err != nil {
			t.Fatal(err)
		}
		id := strings.TrimPrefix(m.Subject, "gen.")
		if l.generations[id] == nil {
			l.generations[id] = &generationOf{artifacts: map[int]artifactOf{}, errors: map[int]string{}}
		}
		l.commits++
		for _, e := range body.Events {
			l.events++
			l.cost += l.generations[id].event(e)
		}
	}
	return l
}

// event takes one event in, and returns what it cost.
func (g *generationOf) event(e map[string]any) (cost int64) {
	number := func(v any) int64 { n, _ := v.(json.Number).Int64(); return n }
	switch e["type"] {
	case "requested":
		g.model, g.count = e["model"].(string), int(number(e["expected_count"]))
	case "output_succeeded":
		a := e["artifact"].(map[string]any)
		seed, _ := a["seed"].(string)
		cost = number(a["cost"])
		g.artifacts[int(number(e["slot"]))] = artifactOf{
			a["id"].(string), a["blob_key"].(string), a["sha256"].(string), seed, number(a["size"]), cost,
		}
	case "output_failed":
		g.errors[int(number(e["slot"]))] = e["error"].(map[string]any)["code"].(string)
	case "completed":
		_, g.failed = e["error"]
		g.completed = true
	}
	return cost
}

type rowsOf struct {
	cost        int64
	generations map[string]*int // artifact_count by ID
	artifacts   map[string]artifactOf
}

func readRows(t *testing.T, dir string) rowsOf {
	t.Helper()
	current, err := os.ReadFile(filepath.Join(dir, "CURRENT"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, strings.TrimSpace(string(current))))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rowsOf{generations: map[string]*int{}, artifacts: map[string]artifactOf{}}
	each := func(query string, take func(scan func(...any) error) error) {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := take(rows.Scan); err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	each("select id, artifact_count from generations", func(scan func(...any) error) error {
		var id string
		n := new(int)
		err := scan(&id, n)
		r.generations[id] = n
		return err
	})
	each("select id, blob_key, coalesce(seed, ''), coalesce(cost, 0) from artifacts", func(scan func(...any) error) error {
		var a artifactOf
		err := scan(&a.id, &a.key, &a.seed, &a.cost)
		r.artifacts[a.id] = a
		r.cost += a.cost
		return err
	})
	return r
}

type sumOf struct {
	sha256 string
	size   int64
}

// readFiles is every file under the bucket's directory by its key.
func readFiles(t *testing.T, dir string) map[string]sumOf {
	t.Helper()
	sums := map[string]sumOf{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		sum := sha256.Sum256(b)
		sums[path] = sumOf{hex.EncodeToString(sum[:]), int64(len(b))}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}
