package natsd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestStoreLimitIsBelowTheFreeDisk(t *testing.T) {
	dir := t.TempDir()
	const held = 3 << 20
	if err := os.MkdirAll(filepath.Join(dir, "jetstream", "stream"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "jetstream", "stream", "1.blk"), make([]byte, held), 0o600); err != nil {
		t.Fatal(err)
	}
	limit, err := storeLimit(dir)
	if err != nil {
		t.Fatal(err)
	}
	free, total, err := Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Others write to this disk too: the free space moves a little between two looks.
	const slack = 64 << 20
	want := max(held+free-Reserve(total), 1)
	if limit < want-slack || limit > want+slack {
		t.Errorf("limit is %d with %d of %d free, want about %d", limit, free, total, want)
	}
	if free > Reserve(total) && limit >= held+free {
		t.Errorf("limit %d is not below what is held and free, %d", limit, held+free)
	}
	if _, err := storeLimit(filepath.Join(dir, "missing")); err == nil {
		t.Error("a directory that is not there has a limit")
	}
}

func TestLimitAskedForIsTheLimit(t *testing.T) {
	dir := t.TempDir()
	opts, err := options(Config{Dir: dir, MaxStore: 12345})
	if err != nil || opts.JetStreamMaxStore != 12345 {
		t.Errorf("limit is %d, %v", opts.JetStreamMaxStore, err)
	}
	opts, err = options(Config{Dir: dir})
	if err != nil || opts.JetStreamMaxStore <= 0 || !opts.SyncAlways || !opts.DontListen {
		t.Errorf("limit %d, sync always %v, listens not %v, %v", opts.JetStreamMaxStore, opts.SyncAlways, opts.DontListen, err)
	}
}
