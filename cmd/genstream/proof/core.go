package proof

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// apart are the parts of the source, from the top of the module, that no promise
// rests on: what measures, looks, shows or counts, and what only tests use.
var apart = []string{
	"cmd/genstream/bench", "cmd/genstream/doctor", "cmd/genstream/demo.go", "cmd/genstream/proof", "cmd/genstream/prove",
	"events/stream/streamtest/", "events/natsd/natsdtest/", "orchestrator/provider/providertest/",
}

// InCore says whether a file, by its path from the top of the module, is of the
// core: the Go code that the server is made of, its schema, and the versions of
// its libraries.
func InCore(name string) bool {
	if name == "go.mod" {
		return true
	}
	if ext := path.Ext(name); ext != ".go" && ext != ".sql" || strings.HasSuffix(name, "_test.go") {
		return false
	}
	return !slices.ContainsFunc(apart, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// Core is the digest of the core of a checkout that fsys is the top of, 12 digits.
// Two checkouts with the same core have the same, whatever their commits, and
// nothing but the files is needed for it.
func Core(fsys fs.FS) (string, error) {
	sum, n := sha256.New(), 0
	err := walk(fsys, func(name string) error {
		if !InCore(name) {
			return nil
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		own := sha256.New()
		if _, err := io.Copy(own, f); err != nil {
			return err
		}
		n++
		_, err = fmt.Fprintf(sum, "%s %x\n", name, own.Sum(nil))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the core: %w", err)
	}
	if n == 0 {
		return "", fmt.Errorf("read the core: there is no source here: %w", fs.ErrNotExist)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// walk calls f with each file that may be of the source, in the order of names.
func walk(fsys fs.FS, f func(name string) error) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case d.IsDir() && (base == "testdata" || base == "genstream-data" || strings.HasPrefix(base, ".") && base != "."):
			return fs.SkipDir
		case d.Type().IsRegular():
			return f(name)
		}
		return nil
	})
}
