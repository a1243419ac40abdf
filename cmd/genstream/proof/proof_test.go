package proof_test

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof"
)

func TestToldReadsOnlyTheLineOfATest(t *testing.T) {
	for text, want := range map[string]*proof.Report{
		"    crash_test.go:12: proof: kind=crashes cases=120 violations=0 next=120\n":      {Kind: "crashes", Cases: 120, Next: 120},
		"proof: kind=histories next=9 operations=4000 violations=1 cases=3 acknowledged=7": {Kind: "histories", Cases: 3, Violations: 1, Next: 9, Figures: map[string]int64{"operations": 4000, "acknowledged": 7}},
		"proof: kind=disk cases=1 violations=0":                                            nil,
		"proof: kind=disk cases=1 violations=0 next=99999999999999999999":                  nil,
		"proof: kind= cases=1 violations=0 next=1":                                         nil,
		"the proof of it": nil,
		"":                nil,
	} {
		got, ok := proof.Told(text)
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, *want) {
			t.Errorf("%q: %+v %v, want %+v", text, got, ok, want)
		}
		if !ok {
			continue
		}
		if again, ok := proof.Told(got.String()); !ok || !reflect.DeepEqual(again, got) {
			t.Errorf("%q does not read as itself: %+v", got, again)
		}
	}
}

func TestReadNamesTheLineThatIsBroken(t *testing.T) {
	good := `{"at":"2026-11-24T23:00:00Z","commit":"52a1b94","core":"c","kind":"seeds","cases":5,"violations":0,"seconds":1.5,"next":5}` + "\n"
	if lines, err := proof.Read([]byte(good + "\n" + good)); err != nil || len(lines) != 2 || lines[1].Seconds != 1.5 {
		t.Errorf("%+v, %v", lines, err)
	}
	if lines, err := proof.Read(nil); err != nil || len(lines) != 0 {
		t.Errorf("nothing: %+v, %v", lines, err)
	}
	if _, err := proof.Read([]byte(good + good[:40])); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("half a line: %v", err)
	}
}

var (
	seeds     = proof.Kind{Name: "seeds", Goal: 1000}
	disk      = proof.Kind{Name: "disk", Goal: 10}
	histories = proof.Kind{Name: "histories", Goal: 100, Of: "operations"}
	minutes   = proof.Kind{Name: "minutes", Goal: 3, Least: time.Minute}
)

func at(minute int) time.Time { return time.Date(2026, 11, 24, 23, minute, 0, 0, time.UTC) }

func TestSumsKeepOtherCoresApart(t *testing.T) {
	lines := []proof.Line{
		{At: at(1), Core: "old", Kind: "seeds", Cases: 400, Violations: 2, Next: 400, Seconds: 9},
		{At: at(3), Core: "new", Kind: "seeds", Cases: 30, Next: 130, Seconds: 3}, // two machines, one file
		{At: at(2), Core: "new", Kind: "seeds", Cases: 100, Violations: 1, Next: 100, Seconds: 4},
		{At: at(4), Core: "new", Kind: "histories", Cases: 2, Next: 2, Figures: map[string]int64{"operations": 80}},
		{At: at(4), Core: "new", Kind: "gone", Cases: 7, Violations: 7, Next: 7},
		{At: at(5), Core: "old", Kind: "disk", Cases: 10, Next: 10},
	}
	got := proof.Add([]proof.Kind{seeds, disk, histories}, lines, "new")
	want := []proof.Sum{
		{Kind: seeds, Here: 130, Before: 400, Violations: 1, Earlier: 2, Seconds: 7, Next: 130},
		{Kind: disk, Before: 10},
		{Kind: histories, Here: 80, Next: 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if n := proof.Violations(got); n != 1 {
		t.Errorf("%d violations at this core", n)
	}
}

func TestPlanGoesOnWithWhatIsFurthestFromItsGoal(t *testing.T) {
	type sums = []proof.Sum
	for name, c := range map[string]struct {
		sums   sums
		insist bool
		left   time.Duration
		kind   string // empty: nothing
		from   int64
		cases  int64
		long   time.Duration
	}{
		"nothing was tried":          {sums{{Kind: seeds}, {Kind: disk}}, false, 40 * time.Minute, "seeds", 0, 1000, 20 * time.Minute},
		"one is behind":              {sums{{Kind: seeds, Here: 500, Next: 500}, {Kind: disk, Here: 4, Next: 4}}, false, 40 * time.Minute, "disk", 4, 6, 20 * time.Minute},
		"one has reached it":         {sums{{Kind: seeds, Here: 999, Next: 2000}, {Kind: disk, Here: 11}}, false, 40 * time.Minute, "seeds", 2000, 1, 40 * time.Minute},
		"all have":                   {sums{{Kind: seeds, Here: 1000}, {Kind: disk, Here: 10}}, false, 40 * time.Minute, "", 0, 0, 0},
		"all have, and are wanted":   {sums{{Kind: disk, Here: 10, Next: 10}}, true, time.Minute, "disk", 10, 10, time.Minute},
		"no share is under a minute": {sums{{Kind: seeds}, {Kind: disk}}, false, 90 * time.Second, "seeds", 0, 1000, time.Minute},
		"but all there is may be":    {sums{{Kind: seeds}, {Kind: disk}}, false, 5 * time.Second, "seeds", 0, 1000, 5 * time.Second},
		"a case takes longer":        {sums{{Kind: minutes}}, false, 50 * time.Second, "", 0, 0, 0},
		"the time is over":           {sums{{Kind: seeds}}, false, 300 * time.Millisecond, "", 0, 0, 0},
		"there is no goal":           {sums{{Kind: proof.Kind{Name: "none"}}}, false, time.Hour, "", 0, 0, 0},
	} {
		s, ok := proof.Plan(proof.Order(c.sums, c.insist), c.left)
		if s.Name != c.kind || ok != (c.kind != "") || s.From != c.from || s.Cases != c.cases || s.For != c.long {
			t.Errorf("%s: %s from %d, %d cases, for %s (%v)", name, s.Name, s.From, s.Cases, s.For, ok)
		}
	}
}

func TestCommandRepeatsARun(t *testing.T) {
	kinds, err := proof.Kinds(os.DirFS("../../.."))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"seeds":   "GENSTREAM_SEEDS=70 GENSTREAM_FROM=30 GENSTREAM_FOR=1m30s go test -run '^TestSimulation$' -count 1 -timeout 0 -v ./orchestrator",
		"mutants": "GENSTREAM_MUTANTS=all GENSTREAM_FROM=30 GENSTREAM_FOR=1m30s go test -run '^TestMutants$' -count 1 -timeout 0 -v ./orchestrator",
		"cluster": "GENSTREAM_FROM=30 GENSTREAM_FOR=1m30s go test -tags cluster -run '^TestClusterScenarios$' -count 1 -timeout 0 -v ./cmd/genstream",
	} {
		one, err := proof.Named(kinds, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		if got := one[0].Command(30, 70, 90*time.Second); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if _, err := proof.Named(kinds, []string{"seed"}); err == nil || !strings.Contains(err.Error(), "seeds, mutants") {
		t.Errorf("an unknown kind: %v", err)
	}
}

func TestTargetsAreFoundInTheSource(t *testing.T) {
	all, err := proof.Targets(os.DirFS("../../.."))
	if err != nil || len(all) < 20 || !slices.Contains(all, proof.Target{Package: "./events", Name: "FuzzDecode"}) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestCoreIsWhatTheServerIsMadeOf(t *testing.T) {
	tree := func(change ...string) string {
		fsys := fstest.MapFS{}
		for _, name := range []string{
			"go.mod", "events/log.go", "events/log_test.go", "projector/catalog/schema.sql", "README.md", "cmd/genstream/prove_run.go",
			"events/stream/streamtest/id.go", "orchestrator/testdata/mutants/a.txt", "cmd/genstream/bench/fill/fill.go", ".git/hooks/x.go",
		} {
			fsys[name] = &fstest.MapFile{Data: []byte(name)}
		}
		for _, name := range change {
			fsys[name] = &fstest.MapFile{Data: []byte("changed")}
		}
		core, err := proof.Core(fsys)
		if err != nil {
			t.Fatal(err)
		}
		return core
	}
	was := tree()
	for _, name := range []string{"go.mod", "events/log.go", "projector/catalog/schema.sql", "blob/new.go"} {
		if tree(name) == was {
			t.Errorf("%s is of the core, and changes nothing", name)
		}
	}
	if now := tree("events/log_test.go", "README.md", "cmd/genstream/prove_run.go", "events/stream/streamtest/id.go",
		"orchestrator/testdata/mutants/a.txt", "cmd/genstream/bench/fill/fill.go", ".git/hooks/x.go"); now != was {
		t.Errorf("what is not of the core changes it: %s, %s", was, now)
	}
	if _, err := proof.Core(fstest.MapFS{"README.md": {}}); err == nil {
		t.Error("there is a core where there is no source")
	}
}

func TestRewriteWantsOnePlace(t *testing.T) {
	const page = "a\n<!-- proof: what follows is written by genstream prove -->\nold\n<!-- proof: end -->\nz\n"
	got, err := proof.Rewrite(page, "| new |\n")
	if err != nil || strings.Contains(got, "old") || !strings.Contains(got, "-->\n\n| new |\n\n<!--") || !strings.HasSuffix(got, "z\n") {
		t.Errorf("%q, %v", got, err)
	}
	if again, err := proof.Rewrite(got, "| new |\n"); again != got || err != nil {
		t.Errorf("the second time: %q, %v", again, err)
	}
	for _, text := range []string{"", page[:40], page + page, strings.Replace(page, "end", "and", 1)} {
		if _, err := proof.Rewrite(text, ""); !errors.Is(err, proof.ErrNoMarks) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNumbersAreReadable(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 10_000_000: "10,000,000", -1234: "-1,234", -123: "-123"} {
		if got := proof.Number(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
