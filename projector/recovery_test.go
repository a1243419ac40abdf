package projector_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

func TestAnotherLogIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make(10)
	end := w.end()
	last, err := w.log.At(t.Context(), end)
	check(t, err)
	for name, at := range map[string]catalog.Position{
		"replaced":         {Fingerprint: "another", Sequence: end, Digest: last.Digest},
		"replaced at zero": {Fingerprint: "another"},
		"cut":              {Fingerprint: w.log.Fingerprint(), Sequence: end + 1, Digest: "d"},
		"changed":          {Fingerprint: w.log.Fingerprint(), Sequence: end - 1, Digest: last.Digest},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, err := catalog.Create(t.Context(), filepath.Join(dir, "catalog-1.db"), at.Fingerprint)
			check(t, err)
			_, err = c.Insert(t.Context(), nil, at)
			check(t, errors.Join(err, c.Close(), os.WriteFile(filepath.Join(dir, "CURRENT"), []byte("catalog-1.db\n"), 0o600)))
			p, err := projector.New(t.Context(), projector.Config{Log: w.log, Dir: dir})
			check(t, err)
			defer p.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := p.Run(ctx); !errors.Is(err, projector.ErrDiverged) || !strings.Contains(err.Error(), dir) {
				t.Errorf("run: %v, want ErrDiverged and what to do (I21)", err)
			}
			check(t, p.Rebuild(t.Context(), nil)) // the way out
			if dump(t, p.Current()) != w.build() {
				t.Error("the rebuilt catalog is another one")
			}
			cancel()
			check(t, p.Run(ctx))
		})
	}
}

// What a crash, a disk or an operator can leave in the folder: the next start has
// a catalog of everything, whatever it was.
func TestFolderIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make(30)
	want := w.build()
	for name, tc := range map[string]struct {
		spoil        func(dir string) error
		serves, left string
	}{
		"nothing": {func(string) error { return nil }, "catalog-1.db", "[CURRENT catalog-1.db]"},
		"rebuild that did not end": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "catalog-7.db"), []byte("half"), 0o600)
		}, "catalog-1.db", "[CURRENT catalog-1.db]"},
		"half-written CURRENT": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "CURRENT.123"), []byte("cata"), 0o600)
		}, "catalog-1.db", "[CURRENT catalog-1.db]"},
		"no CURRENT":            {func(dir string) error { return os.Remove(filepath.Join(dir, "CURRENT")) }, "catalog-2.db", "[CURRENT catalog-2.db]"},
		"CURRENT of no meaning": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "CURRENT"), []byte("../x.db\n"), 0o600) }, "catalog-2.db", "[CURRENT catalog-2.db]"},
		"no build":              {func(dir string) error { return os.Remove(filepath.Join(dir, "catalog-1.db")) }, "catalog-1.db", "[CURRENT catalog-1.db]"},
		"empty build":           {func(dir string) error { return os.Truncate(filepath.Join(dir, "catalog-1.db"), 0) }, "catalog-2.db", "[CURRENT catalog-2.db]"},
		"damaged build":         {func(dir string) error { return overwrite(dir, 4096, make([]byte, 4096)) }, "catalog-2.db", "[CURRENT catalog-1.db.damaged catalog-2.db]"},
		"another schema":        {func(dir string) error { return overwrite(dir, 60, []byte{0, 0, 0, 7}) }, "catalog-2.db", "[CURRENT catalog-2.db]"}, // user_version, sqlite.org/fileformat2.html 1.3
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := w.run(projector.Config{Dir: dir})
			p.wait(w)
			p.stop()
			check(t, tc.spoil(dir))
			p = w.run(projector.Config{Dir: dir})
			p.wait(w)
			// A build that can still serve does so until the next one is there.
			p.serves(tc.serves)
			p.wait(w)
			if got := dump(t, p.Current()); got != want {
				t.Errorf("mended to\n%s\nwant\n%s", got, want)
			}
			p.stop()
			if names := files(t, dir); fmt.Sprint(names) != tc.left {
				t.Errorf("left %v, want %s", names, tc.left)
			}
		})
	}
}

// While its successor is built, and before the log is even looked at, a build of
// another schema answers as before.
func TestOldSchemaServesMeanwhile(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.make(10)
	p := w.run(projector.Config{Dir: dir})
	p.wait(w)
	p.stop()
	check(t, overwrite(dir, 60, []byte{0, 0, 0, 7}))
	old, err := projector.New(t.Context(), projector.Config{Log: w.log, Dir: dir})
	check(t, err)
	defer old.Close()
	if old.Position() != w.end() || dump(t, old.Current()) != w.build() {
		t.Errorf("the old build is at %d of %d, or says something else", old.Position(), w.end())
	}
}

// Nobody compares rows with the log as long as they can be read: a row that was
// changed behind our back is found by its difference from a build of the log.
func TestAlteredRowShowsInTheDump(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.make(10)
	p := w.run(projector.Config{Dir: dir})
	p.wait(w)
	p.stop()
	path := filepath.Join(dir, "catalog-1.db")
	b, err := os.ReadFile(path)
	check(t, err)
	check(t, os.WriteFile(path, bytes.ReplaceAll(b, []byte("red fox"), []byte("red cat")), 0o600))
	c, err := projector.OpenCurrent(t.Context(), dir)
	check(t, err)
	defer c.Close()
	if dump(t, c) == w.build() {
		t.Error("an altered row does not show")
	}
}

func TestOpenCurrentOfNothing(t *testing.T) {
	t.Parallel()
	if _, err := projector.OpenCurrent(t.Context(), t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v, want ErrNotExist", err)
	}
}

func overwrite(dir string, at int64, b []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, "catalog-1.db"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}
