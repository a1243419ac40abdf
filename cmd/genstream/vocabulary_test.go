package main_test

import (
	"encoding/json"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// forbidden are the words that we have no use for, and why.
var forbidden = map[string]string{
	"status":  "there is none: completed_at says that it is done, artifact_count whether it is good",
	"state":   "there is none: what is known of a generation is the fold of its events",
	"pending": "a generation is open until it is completed",
	"job":     "it is a generation",
	"item":    "it is an output, an artifact, an event: say which",
	"record":  "it is a generation, a commit, a row: say which",
	"image":   "it is an output or an artifact: there is video and sound, too",
	"manager": "say what it does", "service": "say what it does", "helper": "say what it does",
	"util": "say what it does", "common": "say what it does",
}

// allowed are the places where such a word is somebody else's: a folder or a
// file, the words, and whose they are.
var allowed = []struct {
	path  string
	words []string
	whose string
}{
	{"orchestrator/provider/runware/", []string{"*"}, "the provider's wire format keeps the provider's words"},
	{"orchestrator/provider/sim/", []string{"*"}, "it speaks the same format"},
	{"orchestrator/provider/providertest/", []string{"*"}, "and so do its claims"},
	{"orchestrator/problem.go", []string{"status"}, "RFC 9457 names the member of a problem"},
	{"cmd/genstream/bench/floor/provider.go", []string{"image"}, "the provider's wire format, once more, on its own"},
	{"projector/api/", []string{"status"}, "RFC 9457 in the API, and huma's StatusError"},
	{"projector/api/openapi_test.go", []string{"item"}, "JSON Schema describes an array by it"},
	{"projector/api/page/", []string{"image"}, "the kind of medium, as content types have it"},
	{"cmd/genstream/badinput_test.go", []string{"status", "state"}, "RFC 9457's member, and JetStream's account of a stream"},
	{"events/natsd/natsdtest/processes.go", []string{"state"}, "JetStream's account of a stream"},
	{"cmd/genstream/vocabulary_test.go", []string{"*"}, "these very lists"},
}

func excused(path, word string) bool {
	for _, a := range allowed {
		if strings.HasPrefix(path, a.path) && (slices.Contains(a.words, word) || slices.Contains(a.words, "*")) {
			return true
		}
	}
	return false
}

var parted = regexp.MustCompile(`[A-Z]+[a-z0-9]*|[a-z0-9]+`)

// wrong is the first forbidden word in a name such as fooBar, FOOBar or foo_bar.
func wrong(path, name string) (word string, found bool) {
	for _, w := range parted.FindAllString(name, -1) {
		w = strings.ToLower(w)
		for _, singular := range []string{w, strings.TrimSuffix(w, "s"), strings.TrimSuffix(w, "es")} {
			if _, ok := forbidden[singular]; ok && !excused(path, singular) {
				return singular, true
			}
		}
	}
	return "", false
}

// nameLike is a text that names something: a JSON member, a column, a label.
var nameLike = regexp.MustCompile(`^[a-z]+(_[a-z0-9]+)*$`)

// TestNoStatus parses every file for names that we gave. What the standard
// library and others declare is used freely: only declarations count, and texts
// that can be names.
func TestNoStatus(t *testing.T) {
	fset, all := sources(t)
	for _, s := range all {
		check := func(pos token.Pos, name string) {
			if word, found := wrong(s.path, name); found {
				t.Errorf("%s: %s: no %s: %s", fset.Position(pos), name, word, forbidden[word])
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.File:
				check(n.Name.Pos(), n.Name.Name)
			case *ast.ImportSpec:
				if n.Name != nil {
					check(n.Pos(), n.Name.Name)
				}
				return false
			case *ast.FuncDecl:
				check(n.Name.Pos(), n.Name.Name)
			case *ast.TypeSpec:
				check(n.Name.Pos(), n.Name.Name)
			case *ast.ValueSpec:
				for _, name := range n.Names {
					check(name.Pos(), name.Name)
				}
			case *ast.Field: // fields, parameters, results, receivers, methods of interfaces
				for _, name := range n.Names {
					check(name.Pos(), name.Name)
				}
				if n.Tag != nil {
					checkTag(t, n, func(name string) { check(n.Tag.Pos(), name) })
				}
				return true
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, left := range n.Lhs {
						if name, ok := left.(*ast.Ident); ok {
							check(name.Pos(), name.Name)
						}
					}
				}
			case *ast.RangeStmt:
				for _, e := range []ast.Expr{n.Key, n.Value} {
					if name, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
						check(name.Pos(), name.Name)
					}
				}
			case *ast.LabeledStmt:
				check(n.Label.Pos(), n.Label.Name)
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil && nameLike.MatchString(text) {
					check(n.Pos(), text)
				}
			}
			return true
		})
	}
}

func checkTag(t *testing.T, f *ast.Field, check func(string)) {
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"json", "query", "path", "header"} {
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get(key), ",")
		check(name)
	}
}

var (
	sqlComment = regexp.MustCompile(`(?m)--.*$`)
	jsComment  = regexp.MustCompile(`(?s)/\*.*?\*/|(?m)//.*$`)
	jsName     = regexp.MustCompile(`(^|[^.\w$])([A-Za-z_$][\w$]*)`) // not what follows a dot: response.status is the browser's
	htmlName   = regexp.MustCompile(`\b(?:id|class|name|data-[a-z-]+)="([^"]*)"|data-([a-z-]+)`)
)

// TestNoStatusElsewhere reads what is not Go.
func TestNoStatusElsewhere(t *testing.T) {
	report := func(path, name string) {
		if word, found := wrong(path, name); found {
			t.Errorf("%s: %s: no %s: %s", path, name, word, forbidden[word])
		}
	}
	each := func(ext string, read func(path, text string)) {
		for _, name := range files(t, ext) {
			text, err := os.ReadFile(filepath.Join(root(t), name))
			if err != nil {
				t.Fatal(err)
			}
			read(name, string(text))
		}
	}
	each(".sql", func(path, text string) {
		for _, name := range regexp.MustCompile(`\w+`).FindAllString(sqlComment.ReplaceAllString(text, ""), -1) {
			report(path, name)
		}
	})
	each(".json", func(path, text string) {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		members(v, func(name string) { report(path, name) })
	})
	each(".js", func(path, text string) {
		for _, m := range jsName.FindAllStringSubmatch(jsComment.ReplaceAllString(text, ""), -1) {
			report(path, m[2])
		}
	})
	each(".html", func(path, text string) {
		for _, m := range htmlName.FindAllStringSubmatch(text, -1) {
			report(path, m[1]+" "+m[2])
		}
	})
}

// members calls f with the name of every member of every object in v.
func members(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			f(name)
			members(inner, f)
		}
	case []any:
		for _, inner := range v {
			members(inner, f)
		}
	}
}

func TestVocabularyTestSeesThroughNames(t *testing.T) {
	for name, want := range map[string]string{
		"Status": "status", "statuses": "status", "jobID": "job", "JobID": "job", "http_status": "status", "pendingJobs": "pending",
		"ImageURL": "image", "images": "image", "common": "common", "itemsPerPage": "item", "recordStore": "record", "TaskManager": "manager",
		"imagine": "", "statement": "", "estate": "", "recorder": "", "generation": "", "commonly": "", "utility": "", "jobless": "",
	} {
		if word, _ := wrong("x.go", name); word != want {
			t.Errorf("%s: found %q, want %q", name, word, want)
		}
	}
	if _, found := wrong("orchestrator/provider/runware/wire.go", "imageURL"); found {
		t.Error("the provider's own word is refused in its folder")
	}
}
