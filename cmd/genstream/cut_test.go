package main

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/projector"
)

// A log that has lost commits which the catalog has read is not worked on: whoever
// acted on it would buy again what it forgot, and hand out its sequences again.
func TestCutLogIsNotStartedOn(t *testing.T) {
	good := makeGood(t)
	mustCopy(t, filepath.Join(good.dir, natsDir), good.early)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 3})
		defer w.end()
		w.cfg.Data, w.cfg.Bucket = good.dir, "file://"+filepath.Join(good.dir, "bucket")
		n, err := openNode(context.Background(), w.cfg, wires{listen: w.pipes.listen, transport: w.tr}, slog.New(slog.DiscardHandler))
		if !errors.Is(err, projector.ErrDiverged) {
			t.Errorf("open: %v, want ErrDiverged before anything runs", err)
		}
		if n != nil {
			n.close()
		}
	})
}

func TestDamagedWebhookKeysAreNoticed(t *testing.T) {
	cfg := config{Data: t.TempDir()}
	made, err := webhookKeys(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Data, webhookKeysName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, other := string(b), strings.Repeat("0d", 32)
	digit := byte('0')
	if line[5] == digit {
		digit = '1'
	}
	for name, c := range map[string]struct {
		text string
		keys int // 0 = refused
	}{
		"as it was made":         {line, 1},
		"a line put in front":    {other + "\n" + line, 2},
		"only a line of others'": {other + "\n", 1},
		"another digit":          {line[:5] + string(digit) + line[6:], 0},
		"another check":          {strings.TrimSpace(line)[:71] + "x\n", 0},
		"cut in the key":         {line[:40], 0},
		"cut in the check":       {line[:70], 0},
		"empty":                  {"", 0},
		"no hex":                 {"z" + line[1:], 0},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := webhookKeys(cfg)
		if (err != nil) != (c.keys == 0) || len(keys) != c.keys {
			t.Errorf("%s: %d keys, %v; want %d", name, len(keys), err, c.keys)
		}
		if c.keys > 0 && name != "only a line of others'" && hex.EncodeToString(keys[len(keys)-1]) != hex.EncodeToString(made[0]) {
			t.Errorf("%s: another key", name)
		}
	}
}
