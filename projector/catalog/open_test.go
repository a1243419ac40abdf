package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/genstream/genstream/projector/catalog"
)

func TestOpenFindsWhatWasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a #folder?", "catalog-1.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Create(t.Context(), path, "stream-1")
	if err != nil {
		t.Fatal(err)
	}
	insert(t, c, entry(1, 1, "m", nil))
	want := dump(t, c)
	if err := c.Check(t.Context()); err != nil {
		t.Errorf("an intact file: %v", err)
	}
	beside, err := catalog.OpenReader(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if dump(t, beside) != want {
		t.Error("a reader beside the writer sees something else")
	}
	if err := errors.Join(beside.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(context.Context, string) (*catalog.Catalog, error){"writer": catalog.Open, "reader": catalog.OpenReader} {
		c, err := open(t.Context(), path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if dump(t, c) != want {
			t.Errorf("%s sees something else", name)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := catalog.Create(t.Context(), path, "stream-1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a build: %v", err)
	}
}

func TestUnusableFileIsFound(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  error
	}{
		"missing":        {func(t *testing.T, path string) { check(t, os.Remove(path)) }, fs.ErrNotExist},
		"empty":          {func(t *testing.T, path string) { check(t, os.Truncate(path, 0)) }, catalog.ErrSchema},
		"cut":            {func(t *testing.T, path string) { check(t, os.Truncate(path, 20000)) }, catalog.ErrDamaged},
		"no database":    {func(t *testing.T, path string) { check(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 8192), 0o600)) }, catalog.ErrDamaged},
		"a page zeroed":  {func(t *testing.T, path string) { overwrite(t, path, 4096, make([]byte, 4096)) }, catalog.ErrDamaged},
		"another schema": {func(t *testing.T, path string) { overwrite(t, path, 60, []byte{0, 0, 0, 7}) }, catalog.ErrSchema}, // user_version, sqlite.org/fileformat2.html 1.3
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "catalog-1.db")
			c, err := catalog.Create(t.Context(), path, "stream-1")
			check(t, err)
			insert(t, c, entry(1, 1, "m", nil))
			check(t, c.Close())
			tc.spoil(t, path)
			c, err = catalog.Open(t.Context(), path)
			if err == nil {
				err = c.Check(t.Context())
				check(t, c.Close())
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("open and check: %v, want %v", err, tc.want)
			}
		})
	}
}

// A build of another schema that still has what the queries ask for goes on serving.
func TestOldSchemaIsReadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog-1.db")
	c, err := catalog.Create(t.Context(), path, "stream-1")
	check(t, err)
	insert(t, c, entry(1, 1, "m", nil))
	_, err = catalog.Exec(c, "pragma user_version = 7")
	check(t, err)
	check(t, c.Close())
	c, err = catalog.OpenReader(t.Context(), path)
	check(t, err)
	if page, err := c.Generations(t.Context(), catalog.GenerationFilter{}); err != nil || len(page.Generations) != 1 {
		t.Errorf("list: %+v, %v", page, err)
	}
	check(t, c.Close())

	c, err = catalog.Create(t.Context(), path+"2", "stream-1")
	check(t, err)
	_, err = catalog.Exec(c, "drop index artifacts_model; pragma user_version = 7")
	check(t, err)
	check(t, c.Close())
	if _, err := catalog.OpenReader(t.Context(), path+"2"); !errors.Is(err, catalog.ErrSchema) {
		t.Errorf("open of a build that cannot answer: %v, want ErrSchema", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt(b, at)
	check(t, errors.Join(err, f.Close()))
}
