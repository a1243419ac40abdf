package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
)

// composeVariables is a value for each variable that docker-compose.yml needs.
func composeVariables() map[string]string {
	return map[string]string{
		"RUNWARE_KEY": "rk", "WEBHOOK_URL": "https://hooks.example.com", "WEBHOOK_KEY": strings.Repeat("ab", 32), "API_KEY": "0123456789abcdef",
		"NATS_ADMIN_PASSWORD": "1e5admin", "NATS_REQUESTER_PASSWORD": "123456", "NATS_CLUSTER_PASSWORD": "cc", // numbers are texts, too
		"FILES_KEY": "fk", "FILES_SECRET": "fs",
	}
}

func composeText(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func loadCompose(text []byte, variables map[string]string) (*types.Project, error) {
	return loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: "../..", Environment: variables,
		ConfigFiles: []types.ConfigFile{{Filename: "docker-compose.yml", Content: text}},
	})
}

func compose(t *testing.T) *types.Project {
	t.Helper()
	p, err := loadCompose(composeText(t), composeVariables())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestComposeHasNoDefaultSecret(t *testing.T) {
	text := composeText(t)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`\$\{?(\w+)([^}]*)\}?`).FindAllStringSubmatch(string(text), -1) {
		used[m[1]] = true
		if m[2] != "" && !strings.HasPrefix(m[2], ":?") {
			t.Errorf("%s has a default: %s", m[1], m[0])
		}
	}
	needed := composeVariables()
	if have, want := slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(needed)); !slices.Equal(have, want) {
		t.Errorf("variables are %v, want %v", have, want)
	}
	example, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	for name := range needed {
		for how, without := range map[string]func(map[string]string){
			"missing": func(m map[string]string) { delete(m, name) },
			"empty":   func(m map[string]string) { m[name] = "" },
		} {
			some := composeVariables()
			without(some)
			if _, err := loadCompose(text, some); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %s: %v, want an error that names it", name, how, err)
			}
		}
		if !regexp.MustCompile(`(?m)^` + name + `=$`).Match(example) {
			t.Errorf(".env.example has no empty %s", name)
		}
	}
}

func TestComposeIsWhatItPromises(t *testing.T) {
	p := compose(t)
	if want := []string{"api", "files", "ingress", "nats-1", "nats-2", "nats-3", "orchestrator"}; !slices.Equal(slices.Sorted(maps.Keys(p.Services)), want) {
		t.Errorf("services are %v, want %v", p.ServiceNames(), want)
	}
	published := map[string]string{}
	for name, s := range p.Services {
		_, tag, _ := strings.Cut(s.Image, ":")
		if s.Build == nil && (tag == "" || tag == "latest") {
			t.Errorf("%s: image %s has no version", name, s.Image)
		}
		if s.Privileged || s.NetworkMode != "" || s.Restart != "unless-stopped" {
			t.Errorf("%s: privileged %t, network mode %q, restart %q", name, s.Privileged, s.NetworkMode, s.Restart)
		}
		for _, port := range s.Ports {
			published[name] = port.HostIP + ":" + port.Published
		}
		if s.Build == nil {
			if networks := slices.Collect(maps.Keys(s.Networks)); !slices.Equal(networks, []string{"inside"}) {
				t.Errorf("%s is on networks %v, want inside", name, networks)
			}
			continue
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || time.Duration(*s.StopGracePeriod) < 20*time.Second {
			t.Errorf("%s: read only %t, capabilities dropped %v, security %v, grace %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt, s.StopGracePeriod)
		}
		for _, on := range []string{"nats-1", "nats-2", "nats-3"} {
			if s.DependsOn[on].Condition != types.ServiceConditionHealthy {
				t.Errorf("%s starts before %s is healthy", name, on)
			}
		}
		if len(s.Volumes) != 1 || s.Volumes[0].Target != "/data" || s.Volumes[0].Source != name {
			t.Errorf("%s: volumes %v: each process needs a data directory of its own", name, s.Volumes)
		}
	}
	if want := map[string]string{"api": "127.0.0.1:8080", "ingress": "127.0.0.1:8081"}; !maps.Equal(published, want) {
		t.Errorf("published are %v, want %v", published, want)
	}
	if !p.Networks["inside"].Internal {
		t.Error("the network of NATS and the files reaches the outside")
	}
}

// TestComposeStartsEachRole reads each process's settings as the process will.
func TestComposeStartsEachRole(t *testing.T) {
	p := compose(t)
	keyFiles := map[string]string{} // in the container, to one here
	for name, c := range p.Configs {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(c.Content), 0o600); err != nil {
			t.Fatal(err)
		}
		keyFiles[name] = path
	}
	for _, role := range []string{roleOrchestrator, roleIngress, roleAPI} {
		t.Run(role, func(t *testing.T) {
			s := p.Services[role]
			files := map[string]string{}
			for _, c := range s.Configs {
				files[c.Target] = keyFiles[c.Source]
			}
			cmd := serveCommand()
			for name, value := range s.Environment {
				t.Setenv(name, *value)
				flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
				if strings.HasPrefix(name, envPrefix) && cmd.Flags().Lookup(flag) == nil && name != envPrefix+"RUNWARE_KEY" {
					t.Errorf("serve has no setting %s", name)
				}
			}
			if err := cmd.ParseFlags(s.Command[1:]); err != nil || s.Command[0] != "serve" {
				t.Fatalf("command %v: %v", s.Command, err)
			}
			var cfg config
			fresh := serveCommandWith(&cfg)
			if err := fresh.ParseFlags(s.Command[1:]); err != nil {
				t.Fatal(err)
			}
			if err := cfg.resolve(fresh); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(cfg.Roles, []string{role}) || cfg.Replicas != 3 || strings.Count(cfg.NATSURL, "nats://admin:1e5admin@nats-") != 3 || cfg.OpsListen == "" {
				t.Errorf("roles %v, %d replicas, NATS at %s, metrics at %q", cfg.Roles, cfg.Replicas, redactURL(cfg.NATSURL), cfg.OpsListen)
			}
			b, err := blob.Open(t.Context(), cfg.Bucket)
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
			if role == roleAPI {
				cfg.APIKeys = files[cfg.APIKeys]
				if _, err := (&node{cfg: cfg}).apiKeys(); err != nil {
					t.Errorf("API keys: %v", err)
				}
				return
			}
			cfg.WebhookKeys = files[cfg.WebhookKeys]
			if keys, err := webhookKeys(cfg); err != nil || len(keys) != 1 {
				t.Errorf("webhook keys: %v", err)
			}
			if list, err := cfg.providers(); err != nil || len(list) != 1 || list[0].Key != "rk" {
				t.Errorf("providers %v, %v", list, err)
			}
		})
	}
	if url := *p.Services[roleOrchestrator].Environment["GENSTREAM_WEBHOOK_URL"]; url != "https://hooks.example.com" {
		t.Errorf("the provider is told %q", url)
	}
}

// TestComposeServersHaveTheTwoUsers runs a server on the very text that the
// containers get, and asks it what the embedded listener is asked.
func TestComposeServersHaveTheTwoUsers(t *testing.T) {
	p := compose(t)
	for _, name := range []string{"nats-1", "nats-2", "nats-3"} {
		s := p.Services[name]
		if c := s.Configs; len(c) != 1 || c[0].Source != "nats" || !slices.Contains(s.Command, c[0].Target) || s.Command[len(s.Command)-1] != name {
			t.Errorf("%s runs %v on %v", name, s.Command, c)
		}
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, []byte(p.Configs["nats"].Content), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !opts.SyncAlways || !opts.JetStream || opts.StoreDir != "/data" || opts.HTTPPort != 8222 || opts.MaxPayload < 1<<20 {
		t.Errorf("sync always %t, JetStream %t in %s, monitoring %d, payload %d", opts.SyncAlways, opts.JetStream, opts.StoreDir, opts.HTTPPort, opts.MaxPayload)
	}
	if len(opts.Routes) != 3 || opts.Cluster.Password != "cc" || opts.Cluster.Name == "" {
		t.Errorf("%d routes, cluster %q", len(opts.Routes), opts.Cluster.Name)
	}
	for i, route := range opts.Routes {
		if password, _ := route.User.Password(); password != "cc" || route.Host != []string{"nats-1:6222", "nats-2:6222", "nats-3:6222"}[i] {
			t.Errorf("route %s", route.Redacted())
		}
	}

	// One node of it, here.
	opts.Cluster, opts.Routes, opts.StoreDir = server.ClusterOpts{}, nil, t.TempDir()
	opts.Host, opts.Port, opts.HTTPPort, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, 0, true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("admin", "1e5admin"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	l, err := stream.Open(t.Context(), nc, stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	natsdtest.CheckUsers(t, s.ClientURL(), map[string]string{"admin": "1e5admin", "requester": "123456"})
	if commits, _, err := l.Size(t.Context()); commits != 0 || err != nil {
		t.Errorf("the log holds %d messages of the requester, %v", commits, err)
	}
	requester, err := nats.Connect(s.ClientURL(), nats.UserInfo("requester", "123456"))
	if err != nil {
		t.Fatal(err)
	}
	defer requester.Close()
	for _, reply := range []string{stream.Subject(events.ID(uuid.Must(uuid.NewV7()).String())), "parked.commit", "horizon.orchestrator"} {
		if err := requester.PublishRequest(stream.SubmitSubject, reply, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := requester.Request(stream.SubmitSubject, []byte("{}"), 5*time.Second); err != nil || !strings.Contains(string(m.Data), stream.Requests) {
		t.Errorf("a submission is not acknowledged: %v", err)
	}
	if commits, _, err := l.Size(t.Context()); commits != 0 || err != nil {
		t.Errorf("a reply subject brought %d messages into the log, %v", commits, err)
	}
	if n, err := l.ParkedCount(t.Context()); n != 0 || err != nil {
		t.Errorf("a reply subject brought %d messages into PARKED, %v", n, err)
	}
	createsAcrossAccounts(t, s.ClientURL(), requester)
	for user, password := range map[string]string{"": "", "admin": "", "requester": "wrong", "node": "cc"} {
		if c, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, password)); err == nil {
			c.Close()
			t.Errorf("user %q with password %q was let in", user, password)
		}
	}
}

// createsAcrossAccounts has a node on the server answer a requester, whose account
// is another.
func createsAcrossAccounts(t *testing.T, server string, requester *nats.Conn) {
	t.Helper()
	data := t.TempDir()
	n, err := openNode(t.Context(), config{
		Data: data, NATSURL: strings.Replace(server, "://", "://admin:1e5admin@", 1), HooksListen: "127.0.0.1:0",
		Bucket: "file://" + filepath.Join(data, "bucket"), Roles: []string{roleOrchestrator, roleIngress},
	}, wires{}, newLogger(t.Output(), false))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- n.run(ctx, func() { close(ready) }) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.close()
	}()
	<-ready
	body := []byte(`{"model":"sim:fox@1","input":{"positivePrompt":"a fox"}}`)
	for until := time.Now().Add(10 * time.Second); ; {
		m, err := requester.Request("genstream.generations.create", body, 5*time.Second)
		if errors.Is(err, nats.ErrNoResponders) && time.Now().Before(until) {
			continue // its subscription is on its way
		}
		if err != nil || !strings.HasPrefix(string(m.Data), `{"id":"`) {
			t.Fatalf("create: %v, %v", m, err)
		}
		return
	}
}
