package orchestrator

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
)

// mutantSeeds is how many seeds the simulation may need to find a planted bug.
const mutantSeeds = "10000"

// short are the mutants of an ordinary run; GENSTREAM_MUTANTS=all runs every one,
// and takes some seconds for each, GENSTREAM_MUTANTS=NAME one.
var short = []string{"no-claim", "2xx-before-disk"}

// TestMutants plants one bug after the other (testdata/mutants/*.txt) and lets the
// simulation find it. The bugs are planted while compiling, by an overlay of the
// file: nothing of them is in the product. A bug that cannot be planted any more,
// because the code has changed, fails the test.
func TestMutants(t *testing.T) {
	files, err := filepath.Glob("testdata/mutants/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d mutants, want 20 at least: %v", len(files), err)
	}
	wanted := os.Getenv("GENSTREAM_MUTANTS")
	run := prooftest.Begin(t, "mutants")
	first := int(run.From) % len(files)
	for i, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			m := readMutant(t, file)
			switch {
			case wanted == "all" && (i < first || !run.More()): // another run hunts it
			case wanted == "all", wanted == name, wanted == "" && slices.Contains(short, name) && !testing.Short():
				run.Tried(1)
				m.hunt(t)
			}
			if t.Failed() {
				run.Violated(i)
			}
		})
	}
}

// mutant is one planted bug.
type mutant struct {
	why     string            // what is wrong with it
	kills   string            // packages whose tests find it; empty: the simulation
	planted map[string]string // file, from the top of the module: its text with the bug
}

var hunk = regexp.MustCompile(`(?s)file: (\S+)\n<<<<\n(.*?)\n====\n(.*?)>>>>\n`)

// readMutant reads a bug and plants it: each of its places is in the file exactly once.
func readMutant(t *testing.T, file string) mutant {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	m := mutant{planted: map[string]string{}}
	first, _, _ := strings.Cut(text, "\n")
	m.why = strings.TrimPrefix(first, "# ")
	if _, rest, ok := strings.Cut(text, "\ntest: "); ok {
		m.kills, _, _ = strings.Cut(rest, "\n")
	}
	hunks := hunk.FindAllStringSubmatch(text, -1)
	if len(hunks) == 0 || m.why == "" {
		t.Fatalf("%s: no hunk, or no sentence", file)
	}
	for _, h := range hunks {
		path, before, after := h[1], h[2], strings.TrimSuffix(h[3], "\n")
		if m.planted[path] == "" {
			source, err := os.ReadFile(filepath.Join("..", path))
			if err != nil {
				t.Fatal(err)
			}
			m.planted[path] = string(source)
		}
		if n := strings.Count(m.planted[path], before); n != 1 {
			t.Fatalf("%s: its place is %d times in %s: plant the bug where it belongs now", file, n, path)
		}
		m.planted[path] = strings.Replace(m.planted[path], before, after, 1)
	}
	return m
}

var found = regexp.MustCompile(`seed \d+ \(the (\d+)th\): (.*)`)

// hunt runs the tests on the code with the bug in it, which must fail.
func (m mutant) hunt(t *testing.T) {
	dir := t.TempDir()
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for path, text := range m.planted {
		original, err := filepath.Abs(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		bug := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(bug, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[original] = bug
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"test", "-vet=off", "-overlay=" + list, "-count=1", "-cpu=1"}
	if m.kills != "" {
		args = append(args, strings.Fields(m.kills)...)
	} else {
		args = append(args, "-run=^TestSimulation$", "./orchestrator")
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GENSTREAM_SEED=", "GENSTREAM_FROM=", "GENSTREAM_FOR=", "GENSTREAM_SEEDS="+mutantSeeds)
	out, err := cmd.CombinedOutput()
	first := found.FindStringSubmatch(string(out))
	switch {
	case err == nil:
		t.Errorf("not found in %s seeds: %s", mutantSeeds, m.why)
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "[setup failed]"):
		t.Errorf("the bug does not compile:\n%s", out)
	case first != nil:
		t.Logf("found at seed %s: %s", first[1], first[2])
	case m.kills != "" && strings.Contains(string(out), "--- FAIL"):
		t.Logf("found by %s", m.kills)
	case strings.Contains(string(out), "panic:"):
		t.Logf("found: it panics")
	default:
		t.Errorf("the tests did not fail because of the bug:\n%s", out)
	}
}
