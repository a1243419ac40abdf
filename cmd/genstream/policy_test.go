package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/genstream/genstream"

// parts says which of our packages a package may import. It is a statement of
// policy: a line changes when the design changes, not when a build fails.
//
//	package: what it may import
const parts = `
# What happened. Nothing below it: everybody can read it, test it and trust it.
events:

# A sync that many share; the log and the bucket wait for it alike.
events/disk:

# Breaking on purpose, at either side of every durable step.
events/fault:

# The log is the only place that speaks to the stream; the server is for whoever
# embeds it, so that clients do not link one.
events/stream:            events events/disk events/fault
events/stream/streamtest: events events/stream
events/natsd:             events/disk events/stream
events/natsd/natsdtest:   events/stream

# The bytes. It knows IDs, and nothing of providers or of the log.
blob: events events/disk events/fault

# What makes things happen. A provider knows neither the log nor the bucket: it
# turns bodies into facts about tasks.
orchestrator/provider/inline:
orchestrator/provider:              events orchestrator/provider/inline
orchestrator/provider/runware:      events orchestrator/provider orchestrator/provider/inline
orchestrator/provider/providertest: events orchestrator/provider orchestrator/provider/inline orchestrator/provider/sim
# The simulation is a stranger on the other side of HTTP: it shares no type with
# us, or a mistake in one would hide the same mistake in the other.
orchestrator/provider/sim:
orchestrator/delivery: blob events orchestrator/provider orchestrator/provider/inline
# The ingress appends what came, and decides nothing.
orchestrator/webhook:  blob events events/fault events/stream orchestrator/delivery orchestrator/provider orchestrator/provider/inline
orchestrator:          blob events events/fault events/stream orchestrator/delivery orchestrator/provider

# What shows what happened. It never imports the writing side, and the writing
# side never imports it: each can run, fail and be replaced without the other.
projector/catalog: events events/fault
projector:         events events/fault events/stream projector/catalog
projector/api:     blob events events/stream projector projector/catalog

# Only commands know everybody.
cmd/genstream:        *
cmd/genstream/doctor: blob events events/stream orchestrator/provider
# What is measured, and what it is compared with. The floor and the provider share
# nothing with the product, or the measure would grow with what is measured.
cmd/genstream/bench/fill: events events/stream
cmd/genstream/bench/floor:
cmd/genstream/bench/instant:
cmd/genstream/bench/load:
cmd/genstream/bench/raw: cmd/genstream/bench/floor
# What the long tests have tried. It counts; the command runs them.
cmd/genstream/proof:
cmd/genstream/proof/prooftest: cmd/genstream/proof
cmd/genstream/verify: blob events events/stream orchestrator/provider/sim projector projector/catalog
`

// libraries says which of our packages may import a library, tests apart. A
// library that is not here is one that nobody has argued for.
const libraries = `
# A client that imports a package of ours must not get a server with it.
github.com/nats-io/nats-server/v2:      events/natsd events/natsd/natsdtest cmd/genstream cmd/genstream/bench/fill cmd/genstream/bench/raw
# Streams, headers and error codes end at the log.
github.com/nats-io/nats.go/jetstream:   events/stream events/stream/streamtest cmd/genstream/bench/raw
# Requests by NATS.
github.com/nats-io/nats.go/micro:       orchestrator projector/api
github.com/nats-io/nats.go:             events/stream events/stream/streamtest events/natsd events/natsd/natsdtest orchestrator projector/api cmd/genstream cmd/genstream/doctor cmd/genstream/bench/fill cmd/genstream/bench/raw
# The catalog could be another database tomorrow.
github.com/mattn/go-sqlite3:            projector/catalog cmd/genstream/bench/floor
# The sum that the server stores with a message (docs/decisions/011).
github.com/minio/highwayhash:           events/natsd
# One package knows what a bucket is; the command adds drivers.
gocloud.dev:                            blob cmd/genstream
# Nothing else downloads, and nothing else guesses types.
code.dny.dev/ssrf:                      blob
github.com/gabriel-vasile/mimetype:     blob
# Waiting for a provider is the lanes' business.
github.com/failsafe-go/failsafe-go:     orchestrator
golang.org/x/time/rate:                 orchestrator
# Each part has its own numbers; the command shows them on one page.
github.com/prometheus/client_golang:    orchestrator orchestrator/webhook projector projector/api cmd/genstream
github.com/danielgtaylor/huma/v2:       projector/api
github.com/spf13/cobra:                 cmd/genstream
github.com/spf13/pflag:                 cmd/genstream
# IDs are minted at the edges: events only checks and derives them.
github.com/google/uuid:                 events/stream events/stream/streamtest orchestrator cmd/genstream cmd/genstream/verify cmd/genstream/doctor cmd/genstream/bench/fill
golang.org/x/crypto/bcrypt:             events/natsd
golang.org/x/sys/unix:                  events/disk events/natsd blob cmd/genstream cmd/genstream/bench/floor
golang.org/x/sync:                      cmd/genstream projector/api
`

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Dir string
	Imports         []string
	Standard        bool
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,Standard"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// rules reads parts or libraries.
func rules(t *testing.T, text string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, list, ok := strings.Cut(line, ":")
		if _, twice := all[name]; !ok || twice {
			t.Fatalf("no rule: %q", line)
		}
		all[name] = strings.Fields(list)
	}
	return all
}

func TestPartsImportOnlyWhatTheyMay(t *testing.T) {
	policy := rules(t, parts)
	packages := list(t, "./...")
	for _, p := range packages {
		may, known := policy[p.name()]
		if !known {
			t.Errorf("package %s is in no rule: say where it belongs", p.name())
			continue
		}
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(may, own) && !slices.Contains(may, "*") {
				t.Errorf("%s must not import %s", p.name(), own)
			}
		}
	}
	for name := range policy {
		if !slices.ContainsFunc(packages, func(p goPackage) bool { return p.name() == name }) {
			t.Errorf("a rule is about %s, which is not there", name)
		}
	}
}

// TestWritingAndReadingNeverMeet is the rule that lets the two sides run, and fail,
// apart. Tests may know both.
func TestWritingAndReadingNeverMeet(t *testing.T) {
	side := func(name string) string {
		first, _, _ := strings.Cut(name, "/")
		return first
	}
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			own, ok := strings.CutPrefix(imported, module+"/")
			if !ok {
				continue
			}
			switch a, b := side(p.name()), side(own); {
			case a == "orchestrator" && b == "projector", a == "projector" && b == "orchestrator":
				t.Errorf("%s imports %s", p.name(), own)
			case b == "cmd" && a != "cmd":
				t.Errorf("%s imports the command %s", p.name(), own)
			}
		}
	}
}

func TestLibrariesStayWhereTheyBelong(t *testing.T) {
	policy := rules(t, libraries)
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			host, _, _ := strings.Cut(imported, "/")
			if !strings.Contains(host, ".") || strings.HasPrefix(imported, module) {
				continue
			}
			rule := ""
			for name := range policy {
				if (imported == name || strings.HasPrefix(imported, name+"/")) && len(name) > len(rule) {
					rule = name
				}
			}
			switch {
			case rule == "":
				t.Errorf("%s imports %s, which nobody has argued for", p.name(), imported)
			case !slices.Contains(policy[rule], p.name()):
				t.Errorf("%s must not import %s", p.name(), imported)
			}
		}
	}
}

// TestEventsImportsTheStandardLibraryOnly looks at everything below it, too.
func TestEventsImportsTheStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, "-deps", "./events") {
		if !p.Standard && p.name() != "events" {
			t.Errorf("events imports %s", p.ImportPath)
		}
	}
	// The vocabulary does no I/O, and has no moving parts.
	for _, p := range list(t, "./events") {
		for _, imported := range p.Imports {
			if slices.Contains([]string{"os", "net", "net/http", "log", "log/slog", "context", "sync", "math/rand", "math/rand/v2", "crypto/rand"}, imported) {
				t.Errorf("events imports %s", imported)
			}
		}
	}
}

// TestServersAreOnlyForWhoeverStartsOne: what is linked into a client of the log.
func TestServersAreOnlyForWhoeverStartsOne(t *testing.T) {
	for _, p := range list(t, "-deps", "./orchestrator/...", "./projector/...", "./blob", "./events/stream/...") {
		if strings.HasPrefix(p.ImportPath, "github.com/nats-io/nats-server") {
			t.Errorf("%s is linked into more than the command", p.ImportPath)
		}
	}
}

// source is one parsed Go file.
type source struct {
	path string // relative to the root, with slashes
	file *ast.File
	text []byte
}

func (s source) test() bool  { return strings.HasSuffix(s.path, "_test.go") }
func (s source) dir() string { return path.Dir(s.path) }

func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	fset := token.NewFileSet()
	var all []source
	for _, name := range files(t, ".go") {
		text, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{name, f, text})
	}
	if len(all) < 50 {
		t.Fatalf("%d Go files: they are looked for in the wrong place", len(all))
	}
	return fset, all
}

// files is every file of the project with the ending.
func files(t *testing.T, ext string) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(root(t)), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.Type().IsRegular() && path.Ext(name) == ext:
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// root is the module's directory: two above this package.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestEveryPackageHasAManual(t *testing.T) {
	docs := map[string]bool{}
	_, all := sources(t)
	for _, s := range all {
		if !s.test() {
			docs[s.dir()] = docs[s.dir()] || s.file.Doc != nil
		}
	}
	for dir, ok := range docs {
		if !ok {
			t.Errorf("%s has no package doc", dir)
		}
	}
}

func TestEveryExportedNameIsExplained(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		if s.test() {
			continue
		}
		missing := func(name *ast.Ident) {
			if name.IsExported() {
				t.Errorf("%s: %s has no doc comment", fset.Position(name.Pos()), name.Name)
			}
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				// Error and Unwrap say in every language what they do.
				if d.Doc == nil && exportedReceiver(d) && d.Name.Name != "Error" && d.Name.Name != "Unwrap" {
					missing(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if d.Doc == nil && spec.Doc == nil {
							missing(spec.Name)
						}
					case *ast.ValueSpec:
						if d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
							for _, name := range spec.Names {
								missing(name)
							}
						}
					}
				}
			}
		}
	}
}

// exportedReceiver says whether a method can be called from outside; a function always can.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}

func TestFilesStayReadable(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		most := 400
		if s.test() {
			most = 600
		}
		if n := bytes.Count(s.text, []byte("\n")); n > most {
			t.Errorf("%s has %d lines, at most %d", s.path, n, most)
		}
	}
}

func TestNothingRunsBeforeMain(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function", fset.Position(f.Pos()))
			}
		}
	}
}

// TestOnlyCommandsPrint: everything else returns errors, or logs where it is told to.
func TestOnlyCommandsPrint(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		if s.test() || strings.HasPrefix(s.path, "cmd/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && (pkg.Name == "fmt" && strings.HasPrefix(sel.Sel.Name, "Print") || pkg.Name == "log" && pkg.Obj == nil && importsLog(s.file)) {
					t.Errorf("%s: %s.%s", fset.Position(n.Pos()), pkg.Name, sel.Sel.Name)
				}
			}
			return true
		})
	}
}

func importsLog(f *ast.File) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"log"` })
}
