package proof_test

import (
	"errors"
	"os"
	"reflect"
	"regexp"
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
	seeds     = proof.Kind{Name: "seeds", Goal: 1000, Core: "new"}
	disk      = proof.Kind{Name: "disk", Goal: 10, Core: "whole"}
	histories = proof.Kind{Name: "histories", Goal: 100, Of: "operations", Core: "new"}
	minutes   = proof.Kind{Name: "minutes", Goal: 3, Least: time.Minute}
	fuzz      = proof.Kind{Name: proof.Fuzz, Goal: 20, Least: time.Minute, Targets: []proof.Target{{Package: "./a", Name: "FuzzA", Core: "a1"}, {Package: "./b", Name: "FuzzB", Core: "b1"}}}
)

func at(minute int) time.Time { return time.Date(2026, 11, 24, 23, minute, 0, 0, time.UTC) }

func TestSumsKeepOtherCoresApart(t *testing.T) {
	lines := []proof.Line{
		{At: at(1), Core: "old", Kind: "seeds", Cases: 400, Violations: 2, Next: 400, Seconds: 9},
		{At: at(3), Core: "new", Kind: "seeds", Cases: 30, Next: 130, Seconds: 3}, // two machines, one file
		{At: at(2), Core: "new", Kind: "seeds", Cases: 100, Violations: 1, Next: 100, Seconds: 4},
		{At: at(4), Core: "new", Kind: "histories", Cases: 2, Next: 2, Figures: map[string]int64{"operations": 80}},
		{At: at(4), Core: "new", Kind: "gone", Cases: 7, Violations: 7, Next: 7},
		{At: at(5), Core: "new", Kind: "disk", Cases: 10, Next: 10}, // which rests on more
	}
	got := proof.Add([]proof.Kind{seeds, disk, histories}, lines)
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

// A minute of one fuzz target is none of another, and counts as long as nothing has
// changed that it rests on.
func TestMinutesOfOneTargetDoNotMakeUpForAnother(t *testing.T) {
	lines := []proof.Line{
		{Core: "all", Kind: proof.Fuzz, Cases: 20, Next: 20}, // from when all had one core
		{Core: "a1", Kind: proof.Fuzz, Target: "./a FuzzA", Cases: 25},
		{Core: "b0", Kind: proof.Fuzz, Target: "./b FuzzB", Cases: 7, Violations: 1},
		{Core: "b1", Kind: proof.Fuzz, Target: "./b FuzzB", Cases: 3},
		{Core: "a1", Kind: proof.Fuzz, Target: "./a FuzzGone", Cases: 9},
	}
	got := proof.Add([]proof.Kind{fuzz}, lines)[0]
	if got.Here != 13 || got.Before != 36 || got.Earlier != 1 || got.Reached() || !slices.Equal(got.Minutes, []int64{25, 3}) {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		minutes []int64
		left    time.Duration
		target  int64
		long    time.Duration
	}{
		{[]int64{0, 0}, time.Hour, 0, 5 * time.Minute},
		{[]int64{5, 0}, time.Hour, 1, 5 * time.Minute},
		{[]int64{5, 9}, 150 * time.Second, 0, 2 * time.Minute},
		{[]int64{10, 9}, time.Hour, 1, time.Minute},
		{[]int64{10, 12}, time.Hour, 0, 5 * time.Minute}, // insisted on
	} {
		var lines []proof.Line
		for i, n := range c.minutes {
			lines = append(lines, proof.Line{Kind: proof.Fuzz, Core: fuzz.Targets[i].Core, Target: fuzz.Targets[i].String(), Cases: n})
		}
		s, ok := proof.Plan(proof.Order(proof.Add([]proof.Kind{fuzz}, lines), true), c.left)
		if !ok || s.From != c.target || s.For != c.long || s.Cases != int64(c.long/time.Minute) {
			t.Errorf("%v: target %d for %s, %d cases (%v)", c.minutes, s.From, s.For, s.Cases, ok)
		}
	}
}

// Provers with other targets each, at the same time, add to what all have had.
func TestMatchingLeavesTargetsOfThatName(t *testing.T) {
	for pattern, want := range map[string][]proof.Target{
		"FuzzB$":    {fuzz.Targets[1]},
		`^\./a `:    {fuzz.Targets[0]},
		"Fuzz[AB]":  fuzz.Targets,
		"FuzzOther": nil,
	} {
		got := proof.Matching([]proof.Kind{disk, fuzz}, regexp.MustCompile(pattern))
		if want == nil {
			if len(got) > 0 {
				t.Errorf("%s: %+v", pattern, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Name != proof.Fuzz || !slices.Equal(got[0].Targets, want) || got[0].Goal != 10*int64(len(want)) {
			t.Errorf("%s: %+v", pattern, got)
		}
	}
	if len(fuzz.Targets) != 2 {
		t.Error("it took targets from the kind that it was given")
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
		"seeds":   "GOMAXPROCS=1 GENSTREAM_SEEDS=70 GENSTREAM_FROM=30 GENSTREAM_FOR=1m30s go test -run '^TestSimulation$' -count 1 -timeout 0 -v ./orchestrator",
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

func TestEachLineOfTheTableHasAsManyCells(t *testing.T) {
	table := proof.Table([]proof.Sum{
		{Kind: proof.Kind{Name: "seeds", Run: "^TestSimulation$"}},
		{Kind: proof.Kind{Name: "power", Run: "^TestPower(s|t)$"}},
	})
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if !strings.Contains(table, `(s\|t)`) {
		t.Errorf("the bar within a command is not escaped:\n%s", table)
	}
	for _, line := range lines {
		if bars := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); bars != strings.Count(lines[1], "|") {
			t.Errorf("%d bars in %s", bars, line)
		}
	}
}

func TestTargetsAreFoundInTheSource(t *testing.T) {
	kinds, err := proof.Kinds(os.DirFS("../../.."))
	if err != nil {
		t.Fatal(err)
	}
	all := kinds[len(kinds)-1]
	if all.Name != proof.Fuzz || len(all.Targets) < 20 || all.Goal != 10*int64(len(all.Targets)) ||
		!slices.ContainsFunc(all.Targets, func(t proof.Target) bool { return t.String() == "./events FuzzDecode" && len(t.Core) == 12 }) {
		t.Errorf("%+v", all)
	}
}

// A kind's core is what its test rests on, and nothing else.
func TestCoreOfAKindIsWhatItsTestRestsOn(t *testing.T) {
	const m = "github.com/genstream/genstream/"
	tree := map[string]string{
		"go.mod":                                "module github.com/genstream/genstream\n\ngo 1.26.0\n",
		"README.md":                             "read me\n",
		".git/hooks/x.go":                       "package x\n",
		"events/log.go":                         "//go:build linux\n\n// Package events.\npackage events\n\nconst A = 1 // one\n",
		"events/log_test.go":                    "package events\n\nfunc FuzzLog(f *testing.F) {}\n",
		"events/stream/stream.go":               "package stream\n\nimport \"" + m + "events\"\n",
		"events/stream/histories_test.go":       "package stream_test\n\nimport (\n\t\"" + m + "events/natsd\"\n\t\"" + m + "events/stream/streamtest\"\n)\n",
		"events/stream/streamtest/id.go":        "package streamtest\n",
		"events/natsd/natsd.go":                 "package natsd\n",
		"projector/projector.go":                "package projector\n\nimport \"" + m + "projector/catalog\"\n",
		"projector/catalog/catalog.go":          "package catalog\n\n//go:embed schema.sql\nvar s string\n",
		"projector/catalog/schema.sql":          "-- rows\n",
		"projector/api/api.go":                  "package api\n\nimport \"" + m + "projector\"\n\n//go:embed page\nvar page embed.FS\n",
		"projector/api/page/index.html":         "<html>",
		"projector/api/fuzz_test.go":            "package api\n\nimport \"" + m + "events\"\n\nfunc FuzzQuery(f *testing.F) {}\n",
		"orchestrator/next.go":                  "package orchestrator\n\nimport \"" + m + "events/stream\"\n",
		"orchestrator/other_test.go":            "package orchestrator_test\n\nimport \"" + m + "events/natsd\"\n",
		"orchestrator/simulation_x_test.go":     "package orchestrator\n\nimport (\n\t\"" + m + "projector\"\n\t\"" + m + "cmd/genstream/proof/prooftest\"\n)\n",
		"orchestrator/provider/runware/wire.go": "package runware\n",
		"orchestrator/testdata/mutants/a.txt":   "# a bug\n\nfile: orchestrator/provider/runware/wire.go\n",
		"cmd/genstream/main.go":                 "package main\n",
		"cmd/genstream/prove_run.go":            "package main\n",
		"cmd/genstream/bench/fill/fill.go":      "package fill\n",
		"cmd/genstream/proof/prooftest/x.go":    "package prooftest\n",
	}
	cores := func(name, text string) map[string]string {
		fsys := fstest.MapFS{}
		for name, text := range tree {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
		kinds, err := proof.Kinds(fsys)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for _, k := range kinds {
			all[k.Name] = k.Core
			for _, target := range k.Targets {
				all[target.Name] = target.Core
			}
		}
		return all
	}
	was := cores("go.mod", tree["go.mod"])
	whole := []string{"cluster", "corruption", "crashes", "disk", "overload", "power"}
	with := func(more ...string) []string { return slices.Sorted(slices.Values(append(more, whole...))) }
	for name, c := range map[string]struct {
		file, text string
		changed    []string
	}{
		"a comment":                   {"events/log.go", strings.Replace(tree["events/log.go"], "one", "a", 1), nil},
		"the manual, and empty lines": {"events/log.go", strings.Replace(tree["events/log.go"], "Package events.\n", "Package events: a\n//\n// manual.\n", 1) + "\n\n", nil},
		"a build constraint":          {"events/log.go", strings.Replace(tree["events/log.go"], "linux", "darwin", 1), with("FuzzLog", "FuzzQuery", "histories", "mutants", "seeds")},
		"a constant":                  {"events/log.go", strings.Replace(tree["events/log.go"], "A = 1", "A = 2", 1), with("FuzzLog", "FuzzQuery", "histories", "mutants", "seeds")},
		"a library":                   {"go.mod", tree["go.mod"] + "\nrequire a v1\n", with("FuzzLog", "FuzzQuery", "histories", "mutants", "seeds")},
		"a new file":                  {"events/new.go", "package events\n", with("FuzzLog", "FuzzQuery", "histories", "mutants", "seeds")},
		"the API":                     {"projector/api/api.go", tree["projector/api/api.go"] + "var x int\n", with("FuzzQuery")},
		"what it embeds":              {"projector/api/page/index.html", "<html lang=en>", with("FuzzQuery")},
		"a schema":                    {"projector/catalog/schema.sql", "-- columns\n", with("FuzzQuery", "mutants", "seeds")},
		"what decides":                {"orchestrator/next.go", tree["orchestrator/next.go"] + "var x int\n", with("mutants", "seeds")},
		"the server":                  {"events/natsd/natsd.go", "package natsd\n\nvar x int\n", with("histories")},
		"where a bug is planted":      {"orchestrator/provider/runware/wire.go", "package runware\n\nvar x int\n", with("mutants")},
		"the command":                 {"cmd/genstream/main.go", "package main\n\nvar x int\n", with()},
		"a test":                      {"events/log_test.go", tree["events/log_test.go"] + "var x int\n", nil},
		"what only tests use":         {"events/stream/streamtest/id.go", "package streamtest\n\nvar x int\n", nil},
		"what counts":                 {"cmd/genstream/proof/prooftest/x.go", "package prooftest\n\nvar x int\n", nil},
		"what runs the proof":         {"cmd/genstream/prove_run.go", "package main\n\nvar x int\n", nil},
		"what measures":               {"cmd/genstream/bench/fill/fill.go", "package fill\n\nvar x int\n", nil},
		"a page":                      {"README.md", "read it\n", nil},
		"what is not of the source":   {".git/hooks/x.go", "package y\n", nil},
	} {
		var changed []string
		for kind, core := range cores(c.file, c.text) {
			if core != was[kind] {
				changed = append(changed, kind)
			}
		}
		slices.Sort(changed)
		if !slices.Equal(changed, c.changed) {
			t.Errorf("%s changes the cores of %v, want %v", name, changed, c.changed)
		}
	}
	if _, err := proof.Kinds(fstest.MapFS{"README.md": {}}); err == nil {
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
