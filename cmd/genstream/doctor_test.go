package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/genstream/genstream/cmd/genstream/doctor"
)

// asked runs doctor as somebody at a terminal does.
func asked(t *testing.T, args ...string) (code int, levels map[string]doctor.Level, text string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(append([]string{"doctor", "--json"}, args...), &out, &errs)
	var r doctor.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	levels = map[string]doctor.Level{}
	for _, f := range r.Findings {
		if levels[f.Check] != doctor.Broken {
			levels[f.Check] = f.Level
		}
	}
	return code, levels, out.String() + errs.String()
}

func TestDoctorMakesNothing(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	code, levels, text := asked(t, "--data", data)
	if code != 0 || levels["data"] != doctor.Warning {
		t.Errorf("exit %d: %s", code, text)
	}
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data directory was made: %v", err)
	}
}

func TestDoctorFindsADemoWell(t *testing.T) {
	w := watch(t)
	code, levels, text := asked(t, "--data", w.data, "--api-keys", filepath.Join(w.data, "api.keys"))
	for _, check := range []string{"NATS", "log", "clock", "sync", "bucket", "disk", "fsync", "provider"} {
		if levels[check] != doctor.OK {
			t.Errorf("%s is %q", check, levels[check])
		}
	}
	if code != 0 {
		t.Errorf("exit %d: %s", code, text)
	}
	for name, secret := range canaries {
		if strings.Contains(text, secret) {
			t.Errorf("the report holds the %s", name)
		}
	}

	// Beside a server that has the directory open.
	n, err := openNode(t.Context(), config{
		Data: w.data, Listen: "127.0.0.1:0", HooksListen: "127.0.0.1:0", Bucket: "file://" + filepath.Join(w.data, "bucket"),
		Roles: []string{roleOrchestrator, roleIngress, roleAPI},
	}, wires{}, newLogger(t.Output(), false))
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	hooks := httptest.NewServer(n.ingress())
	defer hooks.Close()
	handler, err := n.apiHandler(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(handler)
	defer api.Close()
	listen := strings.TrimPrefix(api.URL, "http://")
	if _, levels, text := asked(t, "--data", w.data, "--listen", listen); levels["server"] != doctor.Broken || !strings.Contains(text, "still being read") {
		t.Errorf("a server that does not run yet: %s", text)
	}
	if _, levels, text := asked(t, "--data", w.data, "--listen", "127.0.0.1:1"); levels["server"] != doctor.Warning {
		t.Errorf("a server at another address: %s", text)
	}
	config := filepath.Join(t.TempDir(), "config.json")
	text = `{"providers":[{"name":"sim","kind":"runware","url":"http://` + n.simulator.Addr().String() + `/v1","key":"k"}]}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	go http.Serve(n.simulator, n.sim)
	_, levels, text = asked(t, "--data", w.data, "--config", config, "--webhook-url", hooks.URL)
	if levels["webhook"] != doctor.OK || levels["provider"] != doctor.OK || !strings.Contains(text, "same webhook keys") {
		t.Errorf("the real ingress and the provider: %s", text)
	}
}

func TestDoctorSaysWhatIsBroken(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/hooks/") {
			http.Redirect(w, r, "https://elsewhere.example.com", http.StatusMovedPermanently)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(`{"errors":[{"code":"invalidApiKey","message":"Invalid API key"}]}`))
	}))
	defer refusing.Close()
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("operator short"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GENSTREAM_RUNWARE_KEY", canaries["provider key"])
	code, levels, text := asked(t, "--data", t.TempDir(), "--runware-url", refusing.URL, "--webhook-url", refusing.URL, "--api-keys", keys,
		"--nats-url", "nats://me:"+canaries["NATS admin password"]+"@127.0.0.1:1", "--bucket", "nonsense://bucket?key="+canaries["API key"])
	if code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	for _, check := range []string{"NATS", "bucket", "provider", "webhook", "secrets"} {
		if levels[check] != doctor.Broken {
			t.Errorf("%s is %q", check, levels[check])
		}
	}
	for name, secret := range canaries {
		if strings.Contains(text, secret) {
			t.Errorf("the report holds the %s: %s", name, text)
		}
	}
}
