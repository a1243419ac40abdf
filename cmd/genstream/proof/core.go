package proof

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// apart are the parts of the source, from the top of the module, that no promise
// rests on: what measures, looks, shows or counts, and what only tests use.
var apart = []string{
	"cmd/genstream/bench", "cmd/genstream/doctor", "cmd/genstream/demo.go", "cmd/genstream/proof", "cmd/genstream/prove",
	"events/stream/streamtest/", "events/natsd/natsdtest/", "orchestrator/provider/providertest/",
}

// InCore says whether a file, by its path from the top of the module, is of what
// some kind of test rests on: the Go code that the server is made of, its schema,
// and the versions of its libraries. Files that are embedded are too, which their
// paths do not say.
func InCore(name string) bool {
	if name == "go.mod" {
		return true
	}
	if ext := path.Ext(name); ext != ".go" && ext != ".sql" || strings.HasSuffix(name, "_test.go") {
		return false
	}
	return !slices.ContainsFunc(apart, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// source is the source of a checkout: its packages by their folders.
type source struct {
	fsys      fs.FS
	module    string // its path
	libraries string // digest of go.mod
	packages  map[string]*folder
	tests     []string // the names of all files of tests
}

// folder is what one package is made of.
type folder struct {
	files   []string // a line for each, with its digest
	imports []string // folders of the same module
}

// read reads the source whose top fsys is.
func read(fsys fs.FS) (*source, error) {
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	s := &source{fsys: fsys, libraries: digest(mod), packages: map[string]*folder{}}
	first, _, _ := strings.Cut(string(mod), "\n")
	s.module = strings.TrimSpace(strings.TrimPrefix(first, "module "))
	if err := walk(fsys, s.add); err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	return s, nil
}

// add takes one file.
func (s *source) add(name string) error {
	if strings.HasSuffix(name, "_test.go") {
		s.tests = append(s.tests, name)
		return nil
	}
	if !InCore(name) || name == "go.mod" {
		return nil
	}
	text, err := fs.ReadFile(s.fsys, name)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	f := s.packages[dir]
	if f == nil {
		f = &folder{}
		s.packages[dir] = f
	}
	if path.Ext(name) != ".go" {
		f.files = append(f.files, name+" "+digest(text)+"\n")
		return nil
	}
	f.files = append(f.files, name+" "+digest(code(text))+"\n")
	imports, err := s.imports(name)
	if err != nil {
		return err
	}
	f.imports = append(f.imports, imports...)
	return s.embed(f, dir, text)
}

// embed adds the files that a text of Go embeds. Schemas are there already.
func (s *source) embed(f *folder, dir string, text []byte) error {
	for line := range strings.Lines(string(text)) {
		patterns, ok := strings.CutPrefix(line, "//go:embed ")
		if !ok {
			continue
		}
		for _, pattern := range strings.Fields(patterns) {
			names, err := fs.Glob(s.fsys, path.Join(dir, strings.TrimPrefix(strings.Trim(pattern, "\"`"), "all:")))
			if err != nil {
				return err
			}
			for _, name := range names {
				err := fs.WalkDir(s.fsys, name, func(name string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() || InCore(name) {
						return err
					}
					embedded, err := fs.ReadFile(s.fsys, name)
					f.files = append(f.files, name+" "+digest(embedded)+"\n")
					return err
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// imports are the folders of this module that a file of Go imports.
func (s *source) imports(name string) (folders []string, err error) {
	text, err := fs.ReadFile(s.fsys, name)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	for _, i := range parsed.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		if own, ok := strings.CutPrefix(imported, s.module+"/"); ok {
			folders = append(folders, own)
		}
	}
	return folders, nil
}

// all are the folders of all packages.
func (s *source) all() (folders []string) {
	for dir := range s.packages {
		folders = append(folders, dir)
	}
	return folders
}

// tested are the folders that a test rests on: that of each of its files, and what
// the files import. patterns are of path.Match, from the top.
func (s *source) tested(patterns ...string) (folders []string, err error) {
	for _, name := range s.tests {
		if !slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok }) {
			continue
		}
		imports, err := s.imports(name)
		if err != nil {
			return nil, err
		}
		folders = append(append(folders, path.Dir(name)), imports...)
	}
	return folders, nil
}

// core is the digest of the packages in some folders, of all that they import from
// this module, and of the versions of the libraries: 12 digits. The same files have
// the same, whatever their commit, and nothing but the files is needed for it. What
// is apart counts nowhere.
func (s *source) core(folders []string) string {
	var files []string
	seen := map[string]bool{}
	for todo := slices.Clone(folders); len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if f := s.packages[dir]; f != nil && !seen[dir] {
			seen[dir] = true
			files = append(files, f.files...)
			todo = append(todo, f.imports...)
		}
	}
	slices.Sort(files)
	return digest([]byte(s.libraries + "\n" + strings.Join(slices.Compact(files), "")))[:12]
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// code is what a text of Go says to the compiler: its tokens, and of its comments
// those that are directives. All comments are, if there is C in them.
func code(text []byte) []byte {
	var s scanner.Scanner
	file := token.NewFileSet().AddFile("", -1, len(text))
	s.Init(file, text, func(token.Position, string) {}, scanner.ScanComments)
	withC := strings.Contains(string(text), `import "C"`)
	var said []byte
	for {
		_, tok, word := s.Scan()
		switch {
		case tok == token.EOF:
			return said
		case tok == token.COMMENT && !withC && !strings.HasPrefix(word, "//go:") && !strings.HasPrefix(word, "// +build"):
			continue
		case tok == token.SEMICOLON: // written, or the end of a line
			word = ";"
		case word == "":
			word = tok.String()
		}
		said = strconv.AppendQuote(said, word)
	}
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
