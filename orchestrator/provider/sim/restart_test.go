package sim_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/orchestrator/provider/sim"
)

func TestTasksOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	synctest.Test(t, func(t *testing.T) {
		cfg := sim.Config{Journal: path, Seed: 3}
		w := newWorld(t, cfg)
		w.codes = slices.Repeat([]int{503}, 2)
		w.create("taken [[take 1s]]", 1)
		w.create("refused at first [[take 1s]]", 2)
		w.create("made later [[take 1m]]", 3)
		w.create("[[busy]]", 4)
		w.create("lost [[lose]] [[take 1s]]", 5)
		time.Sleep(1100 * time.Millisecond) // both webhooks are refused, and due again soon
		w.close()
		before := w.came
		file := func(n int) string { return sim.Ledger(w.journal())[uuid(n)].Output.SHA256 }

		// A last line that was not finished is forgotten.
		if err := appendTo(path, `{"kind":"`+strings.Repeat("x", 100_000)); err != nil {
			t.Fatal(err)
		}
		w = newWorld(t, cfg)
		if first := file(1); first == "" {
			t.Error("what was made is forgotten")
		}
		_, b, err := w.get("http://sim.test/files/" + uuid(1) + ".png")
		if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != file(1) {
			t.Error("the file is not the one of before")
		}
		if code, body := w.create("taken", 1); code != 400 || !strings.Contains(body, "duplicateTaskUUID") {
			t.Errorf("a known task: %d %s", code, body)
		}
		if code, body := w.create("[[busy]]", 4); code != 200 {
			t.Errorf("the second try of a busy call: %d %s", code, body)
		}
		quiet()
		for n, webhooks := range map[int]int{1: 1, 2: 1, 3: 1, 4: 1, 5: 0} {
			if l := sim.Ledger(w.journal())[uuid(n)]; l.Webhooks != webhooks || l.Output == nil || l.Taken != 1 {
				t.Errorf("task %d: %+v, want %d webhooks", n, l, webhooks)
			}
		}
		if len(before) != 2 || len(w.came) != 4 {
			t.Errorf("%d webhooks before and %d after, want 2 and 4", len(before), len(w.came))
		}
		w.close()

		w = newWorld(t, cfg) // nothing is left to do
		quiet()
		if len(w.came) != 0 {
			t.Errorf("sent again: %v", w.came)
		}
		w.close()
	})
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
