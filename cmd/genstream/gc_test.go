package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events/stream/streamtest"
)

// gc removes what no commit names, once it is old and only when told to, and
// nothing at all when the log is damaged.
func TestGarbageIsWhatNoCommitNames(t *testing.T) {
	good := makeGood(t)
	bucket := filepath.Join(good.dir, "bucket")
	orphan := func(age time.Duration) string {
		key := filepath.Join("generations", string(streamtest.NewID()), "0-"+strings.Repeat("ab", 16)+".png")
		path := filepath.Join(bucket, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("left behind"), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
		return key
	}
	count := func() (n int) {
		err := filepath.WalkDir(bucket, func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	gc := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(append([]string{"gc", "--data", good.dir}, args...), &out, &out)
		return code, out.String()
	}
	files := count()
	old, young := orphan(48*time.Hour), orphan(time.Minute)

	if code, out := gc(); code != 0 || !strings.Contains(out, old) || strings.Contains(out, young) || count() != files+2 {
		t.Errorf("dry run: exit %d, %d files:\n%s", code, count()-files, out)
	}
	if code, out := gc("--delete", "--grace", "1s"); code != 1 || count() != files+2 {
		t.Errorf("no grace: exit %d, %d files:\n%s", code, count()-files, out)
	}
	if code, out := gc("--delete"); code != 0 || !strings.Contains(out, "1 files removed") || count() != files+1 {
		t.Errorf("delete: exit %d, %d files:\n%s", code, count()-files, out)
	}
	if _, err := os.Stat(filepath.Join(bucket, old)); !os.IsNotExist(err) {
		t.Errorf("the old orphan: %v", err)
	}

	// A log whose end was cut off names fewer files: they are not garbage.
	orphan(48 * time.Hour)
	if err := os.RemoveAll(filepath.Join(good.dir, natsDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(good.dir, natsDir), os.DirFS(good.early)); err != nil {
		t.Fatal(err)
	}
	before := count()
	if code, out := gc("--delete"); code != 1 || !strings.Contains(out, "nothing is removed: I21") || count() != before {
		t.Errorf("damaged log: exit %d, %d files removed:\n%s", code, before-count(), out)
	}
}
