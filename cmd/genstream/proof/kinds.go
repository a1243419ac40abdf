package proof

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The variables by which a long test is told how far to go. Cases of one kind are
// numbered, and a number is the same case in every run.
const (
	For  = "GENSTREAM_FOR"  // start no case after so long, a Go duration
	From = "GENSTREAM_FROM" // the first case
)

// Fuzz is the kind that is run in another way: a case is a minute of one target,
// and case n is a minute of the target n modulo the number of targets.
const Fuzz = "fuzz"

// Kind is one kind of test.
type Kind struct {
	Name    string
	Says    string        // what a case is
	Goal    int64         // cases for which it has shown what it should
	Of      string        // the figure that counts instead of cases; empty: cases do
	Package string        // of the test, from the top of the module
	Tag     string        // build tag; empty: none
	Run     string        // regular expression of the tests
	Count   string        // variable that says how many cases; empty: there is none
	All     string        // what Count is set to instead of a number
	Root    bool          // it needs to be root
	Least   time.Duration // a run that is given less makes no case
}

const command = "./cmd/genstream"

// Kinds are all of them, for the checkout that fsys is the top of.
func Kinds(fsys fs.FS) ([]Kind, error) {
	mutants, err := fs.Glob(fsys, "orchestrator/testdata/mutants/*.txt")
	if err != nil {
		return nil, err
	}
	targets, err := Targets(fsys)
	if err != nil {
		return nil, err
	}
	return []Kind{
		{Name: "seeds", Says: "seeds of the simulation", Goal: 10_000_000, Package: "./orchestrator", Run: "^TestSimulation$", Count: "GENSTREAM_SEEDS"},
		{Name: "mutants", Says: "planted bugs, each found", Goal: int64(len(mutants)), Package: "./orchestrator", Run: "^TestMutants$", Count: "GENSTREAM_MUTANTS", All: "all"},
		{Name: "crashes", Says: "cases of the crash matrix", Goal: 1000, Package: command, Run: "^TestCrashMatrix$", Count: "GENSTREAM_CRASHES", All: "all"},
		{Name: "power", Says: "power cuts, the control failing", Goal: 200, Package: command, Tag: "power", Run: "^TestPowerCut(s|WithoutSyncLoses)$", Count: "GENSTREAM_POWER_CUTS", Root: true},
		{Name: "disk", Says: "runs with full disks", Goal: 100, Package: command, Tag: "disk", Run: "^TestDiskFull$", Count: "GENSTREAM_DISK_RUNS", Root: true},
		{Name: "corruption", Says: "damaged files, none silent", Goal: 300, Package: command, Tag: "corrupt", Run: "^TestCorrupt$", Count: "GENSTREAM_CORRUPTIONS"},
		{Name: "cluster", Says: "scenarios of 60 s on three nodes", Goal: 60, Package: command, Tag: "cluster", Run: "^TestClusterScenarios$"},
		{Name: "histories", Says: "operations, linearizable", Goal: 1_000_000, Of: "operations", Package: "./events/stream", Run: "^TestHistories$"},
		{Name: "overload", Says: "minutes of ten times too much", Goal: 10, Package: command, Tag: "overload", Run: "^TestOverload$", Least: time.Minute},
		{Name: Fuzz, Says: "minutes of a fuzz target", Goal: 10 * int64(len(targets)), Least: time.Minute},
	}, nil
}

// Target is a fuzz target.
type Target struct{ Package, Name string }

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// Targets are the fuzz targets of a checkout, sorted. It reads the source: go test
// -list would have to build every test first.
func Targets(fsys fs.FS) ([]Target, error) {
	var all []Target
	err := walk(fsys, func(name string) error {
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
			all = append(all, Target{"./" + path.Dir(name), string(m[1])})
		}
		return err
	})
	slices.SortFunc(all, func(a, b Target) int { return strings.Compare(a.Package+a.Name, b.Package+b.Name) })
	return all, err
}

// Done is how much of its goal one run has done.
func (k Kind) Done(l Line) int64 {
	if k.Of != "" {
		return l.Figures[k.Of]
	}
	return l.Cases
}

// Env is what a run's environment has: the first case, how many there are to be at
// most, and for how long. No limit of cases is 0, one of time too.
func (k Kind) Env(from, cases int64, long time.Duration) []string {
	var env []string
	switch {
	case k.All != "":
		env = append(env, k.Count+"="+k.All)
	case k.Count != "" && cases > 0:
		env = append(env, fmt.Sprintf("%s=%d", k.Count, cases))
	}
	if from > 0 {
		env = append(env, fmt.Sprintf("%s=%d", From, from))
	}
	if long > 0 {
		env = append(env, For+"="+long.Round(time.Second).String())
	}
	return env
}

// Command is what to type at the top of a checkout to run it, as of Env.
func (k Kind) Command(from, cases int64, long time.Duration) string {
	if k.Name == Fuzz {
		return "go run ./cmd/genstream prove --kind " + Fuzz
	}
	words := append(k.Env(from, cases, long), "go test")
	if k.Tag != "" {
		words = append(words, "-tags", k.Tag)
	}
	return strings.Join(append(words, "-run", "'"+k.Run+"'", "-count 1 -timeout 0 -v", k.Package), " ")
}

// Named are the kinds of these names, in this order, all if there are none. An
// unknown name is an error that lists the known ones.
func Named(all []Kind, names []string) ([]Kind, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []Kind
	for _, name := range names {
		at := slices.IndexFunc(all, func(k Kind) bool { return k.Name == name })
		if at < 0 {
			var known []string
			for _, k := range all {
				known = append(known, k.Name)
			}
			return nil, fmt.Errorf("there is no kind %q: known are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

func sortedKeys(m map[string]int64) []string { return slices.Sorted(maps.Keys(m)) }
