package projector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/projector/catalog"
)

const currentFile = "CURRENT"

var (
	buildName = regexp.MustCompile(`^catalog-([0-9]{1,18})\.db$`)
	buildFile = regexp.MustCompile(`^(catalog-[0-9]{1,18}\.db)(-wal|-shm|-journal)?$`)
)

// OpenCurrent opens the build that serves in the folder, for reading only, and
// checks the whole file: it is how a second process (verify) looks at it. The error
// wraps fs.ErrNotExist if there is none, catalog.ErrDamaged or catalog.ErrSchema.
func OpenCurrent(ctx context.Context, dir string) (*catalog.Catalog, error) {
	name, err := readCurrent(dir)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, fmt.Errorf("open catalog in %s: no %s: %w", dir, currentFile, fs.ErrNotExist)
	}
	c, err := catalog.OpenReader(ctx, filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	if err := c.Check(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// readCurrent is the name of the build that serves, empty if there is none: a
// name that we do not write is as good as none.
func readCurrent(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read current build: %w", err)
	}
	name := strings.TrimSuffix(string(b), "\n")
	if !buildName.MatchString(name) {
		return "", nil
	}
	return name, nil
}

// writeCurrent makes name the build that serves. After a crash at any point
// CURRENT has either the old line or the new one, whole, and if it has the new
// one then the build's own folder entry is on disk too.
func writeCurrent(dir, name string) error {
	f, err := os.CreateTemp(dir, currentFile+".*")
	if err != nil {
		return fmt.Errorf("write current build: %w", err)
	}
	_, err = f.WriteString(name + "\n")
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fault.Around("current.rename", func() error { return os.Rename(f.Name(), filepath.Join(dir, currentFile)) })
	}
	if err != nil {
		return fmt.Errorf("write current build: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// freshName is a name that no build in the folder has or had aside.
func freshName(dir string) (string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("list builds: %w", err)
	}
	last := 0
	for _, f := range files {
		name, _, _ := strings.Cut(f.Name(), ".db")
		if m := buildName.FindStringSubmatch(name + ".db"); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return "", fmt.Errorf("list builds: %w", err)
			}
			last = max(last, n)
		}
	}
	return "catalog-" + strconv.Itoa(last+1) + ".db", nil
}

// sweep removes every build but one, and half-written CURRENT files.
func sweep(dir, keep string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list builds: %w", err)
	}
	for _, f := range files {
		m := buildFile.FindStringSubmatch(f.Name())
		if m != nil && m[1] != keep || strings.HasPrefix(f.Name(), currentFile+".") {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return fmt.Errorf("remove old build: %w", err)
			}
		}
	}
	return nil
}

// removeBuild removes a build that is closed, with what SQLite keeps beside it.
func removeBuild(dir, name string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, name+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove build: %w", err)
		}
	}
	return nil
}

// setAside renames a damaged build, so that somebody may look at it. The file
// itself goes first: without its write-ahead log it could pass for an intact one.
func setAside(dir, name string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Rename(filepath.Join(dir, name+suffix), filepath.Join(dir, name+suffix+".damaged"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set damaged build aside: %w", err)
		}
	}
	return nil
}
