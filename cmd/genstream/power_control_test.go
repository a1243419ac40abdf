//go:build power

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// The same program without its syncs loses much of what it has told. If it does
// not, then this rig cuts no power, and the other tests show nothing.
func TestPowerCutWithoutSyncLoses(t *testing.T) {
	newVolume(t) // skips first: the build takes a while
	p := newPowered(t, withoutSync(t), fsyncGate)
	p.start()
	p.load()
	p.healthy()
	for until := time.Now().Add(time.Minute); !p.heard() && time.Now().Before(until); {
		<-time.After(20 * time.Millisecond)
	}
	p.cut()
	p.report()
	for _, kind := range []string{"create", "webhook", "event", "change", "claim"} {
		if len(p.lost[kind]) == 0 {
			t.Errorf("no %s was lost: the rig is void", kind)
		}
	}
}

// heard says whether every witness has been told something.
func (p *powered) heard() bool {
	answered := false
	for _, e := range p.journal() {
		answered = answered || e.Kind == sim.KindWebhook && e.HTTP/100 == 2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return answered && len(p.acked) > 0 && len(p.changed) > 0 && len(p.shown) > 0
}

// withoutSync builds the program with a gate that syncs nothing. The product has
// no switch for that.
func withoutSync(t *testing.T) string {
	t.Helper()
	temp := t.TempDir()
	source, err := filepath.Abs("sync.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const sync = "func (n *node) syncDisk() error {\n"
	if !bytes.Contains(text, []byte(sync)) {
		t.Fatalf("%s has no %q any more: the control has to be written anew", source, sync)
	}
	changed, overlay, program := filepath.Join(temp, "sync.go"), filepath.Join(temp, "overlay.json"), filepath.Join(temp, "genstream")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err == nil {
		err = os.WriteFile(changed, bytes.Replace(text, []byte(sync), []byte(sync+"\treturn nil\n}\n\nfunc (n *node) syncDiskOfTheProduct() error {\n"), 1), 0o600)
	}
	if err == nil {
		err = os.WriteFile(overlay, replace, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the control: %v %s", err, out)
	}
	return program
}
