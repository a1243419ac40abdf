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

// Fuzz is the kind that is run in another way: a case is a minute of one target.
const Fuzz = "fuzz"

// each is how many minutes each fuzz target is to have. More of one make up for
// nothing of another.
const each = 10

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
	One     bool          // it runs on one processor, so that several kinds can at a time
	Core    string        // digest of the source that its test rests on; empty if it has targets
	Targets []Target      // of Fuzz, sorted
}

// Target is a fuzz target.
type Target struct {
	Package, Name string
	Core          string // digest of the source that it rests on
}

// String names it in a Line.
func (t Target) String() string { return t.Package + " " + t.Name }

const command = "./cmd/genstream"

// Kinds are all of them, for the checkout that fsys is the top of, each with the
// digest of what its test rests on there: for those that run the whole program all
// of the core, for the others the packages that they import, and what those do.
func Kinds(fsys fs.FS) ([]Kind, error) {
	s, err := read(fsys)
	if err != nil {
		return nil, err
	}
	simulation, err := s.tested("orchestrator/simulation*_test.go")
	if err != nil {
		return nil, err
	}
	histories, err := s.tested("events/stream/histories*_test.go")
	if err != nil {
		return nil, err
	}
	mutants, planted, err := s.mutants()
	if err != nil {
		return nil, err
	}
	targets, err := s.targets()
	if err != nil {
		return nil, err
	}
	whole, seeds := s.core(s.all()), s.core(simulation)
	return []Kind{
		{Name: "seeds", Says: "seeds of the simulation", Goal: 10_000_000, Package: "./orchestrator", Run: "^TestSimulation$", Count: "GENSTREAM_SEEDS", One: true, Core: seeds},
		{Name: "mutants", Says: "planted bugs, each found", Goal: int64(mutants), Package: "./orchestrator", Run: "^TestMutants$", Count: "GENSTREAM_MUTANTS", All: "all", Core: s.core(append(simulation, planted...))},
		{Name: "crashes", Says: "cases of the crash matrix", Goal: 1000, Package: command, Run: "^TestCrashMatrix$", Count: "GENSTREAM_CRASHES", All: "all", Core: whole},
		{Name: "power", Says: "power cuts, the control failing", Goal: 200, Package: command, Tag: "power", Run: "^TestPowerCut(s|WithoutSyncLoses)$", Count: "GENSTREAM_POWER_CUTS", Root: true, Core: whole},
		{Name: "disk", Says: "runs with full disks", Goal: 100, Package: command, Tag: "disk", Run: "^TestDiskFull$", Count: "GENSTREAM_DISK_RUNS", Root: true, Core: whole},
		{Name: "corruption", Says: "damaged files, none silent", Goal: 300, Package: command, Tag: "corrupt", Run: "^TestCorrupt$", Count: "GENSTREAM_CORRUPTIONS", Core: whole},
		{Name: "cluster", Says: "scenarios of 60 s on three nodes", Goal: 60, Package: command, Tag: "cluster", Run: "^TestClusterScenarios$", Core: whole},
		{Name: "histories", Says: "operations, linearizable", Goal: 1_000_000, Of: "operations", Package: "./events/stream", Run: "^TestHistories$", Core: s.core(histories)},
		{Name: "overload", Says: "minutes of ten times too much", Goal: 10, Package: command, Tag: "overload", Run: "^TestOverload$", Least: time.Minute, Core: whole},
		{Name: Fuzz, Says: fmt.Sprintf("minutes of fuzzing, %d of each target", each), Goal: each * int64(len(targets)), Least: time.Minute, One: true, Targets: targets},
	}, nil
}

var (
	plantedIn = regexp.MustCompile(`(?m)^file: (\S+)$`)
	killedBy  = regexp.MustCompile(`(?m)^test: \./(\S+)$`)
	fuzzFunc  = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)
)

// mutants is how many planted bugs there are, and the folders that they are planted
// in, or whose tests find them.
func (s *source) mutants() (n int, folders []string, err error) {
	names, err := fs.Glob(s.fsys, "orchestrator/testdata/mutants/*.txt")
	if err != nil {
		return 0, nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(s.fsys, name)
		if err != nil {
			return 0, nil, err
		}
		for _, m := range plantedIn.FindAllSubmatch(text, -1) {
			folders = append(folders, path.Dir(string(m[1])))
		}
		for _, m := range killedBy.FindAllSubmatch(text, -1) {
			folders = append(folders, string(m[1]))
		}
	}
	return len(names), folders, nil
}

// targets are the fuzz targets, sorted. It reads the source: go test -list would
// have to build every test first.
func (s *source) targets() (all []Target, err error) {
	for _, name := range s.tests {
		text, err := fs.ReadFile(s.fsys, name)
		if err != nil {
			return nil, err
		}
		found := fuzzFunc.FindAllSubmatch(text, -1)
		if len(found) == 0 {
			continue
		}
		rests, err := s.tested(name)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			all = append(all, Target{Package: "./" + path.Dir(name), Name: string(m[1]), Core: s.core(rests)})
		}
	}
	slices.SortFunc(all, func(a, b Target) int { return strings.Compare(a.String(), b.String()) })
	return all, nil
}

// is says whether a line tells of what k rests on now.
func (k Kind) is(l Line) bool {
	if k.Name != Fuzz {
		return l.Core == k.Core
	}
	at := k.target(l)
	return at >= 0 && k.Targets[at].Core == l.Core
}

// target is the place of a line's target, -1 if it is there no more.
func (k Kind) target(l Line) int {
	return slices.IndexFunc(k.Targets, func(t Target) bool { return t.String() == l.Target })
}

// Done is how much of its goal one run has done.
func (k Kind) Done(l Line) int64 {
	if k.Of != "" {
		return l.Figures[k.Of]
	}
	return l.Cases
}

// Env is what a run's environment has: the first case, how many there are to be at
// most, for how long, and on how many processors. No limit of cases is 0, one of time too.
func (k Kind) Env(from, cases int64, long time.Duration) []string {
	var env []string
	if k.One {
		env = append(env, "GOMAXPROCS=1")
	}
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

// Matching leaves of the fuzz targets those whose package and name match only, and
// of the kinds those that have any then.
func Matching(kinds []Kind, only *regexp.Regexp) []Kind {
	var chosen []Kind
	for _, k := range kinds {
		k.Targets = slices.DeleteFunc(slices.Clone(k.Targets), func(t Target) bool { return !only.MatchString(t.String()) })
		if k.Goal = each * int64(len(k.Targets)); k.Goal > 0 {
			chosen = append(chosen, k)
		}
	}
	return chosen
}

func sortedKeys(m map[string]int64) []string { return slices.Sorted(maps.Keys(m)) }
