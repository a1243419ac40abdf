package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof"
)

var update = flag.Bool("update", false, "write the table of docs/reliability.md anew")

// The table says what the file says, of the core as it is here: a core that has
// changed has been shown nothing yet.
func TestReliabilityTellsWhatWasProved(t *testing.T) {
	p := prover{}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(p.top, filepath.FromSlash(pageName))
	was, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := p.rewrite(); err != nil {
			t.Fatal(err)
		}
		return
	}
	sums, err := p.sums()
	if err != nil {
		t.Fatal(err)
	}
	want, err := proof.Rewrite(string(was), proof.Table(sums))
	if err != nil {
		t.Fatal(err)
	}
	if string(was) != want {
		t.Errorf("the core has changed, or %s has: go test ./cmd/genstream -run Reliability -update\n%s", proofName, proof.Table(sums))
	}
}

// prove runs a real test. An interrupt lets what is under way end, and counts it,
// and the next run goes on there.
func TestProveGoesOnWhereItWasInterrupted(t *testing.T) {
	if race { // the test that it builds would be built without
		t.Skip("SKIPPED: go test without -race runs it")
	}
	into := filepath.Join(t.TempDir(), "proof.jsonl")
	said := &logLines{}
	c := exec.Command(os.Args[0], "prove", "--for", "10m", "--kind", "seeds", "--into", into)
	c.Env = append(os.Environ(), asGenstream+"=1")
	c.Stderr = said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	for range time.Tick(5 * time.Millisecond) {
		if said.has("2s of 10m0s") { // so the test runs
			break
		}
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said.all())
	}
	first := proved(t, into, 1)
	if first.Kind != "seeds" || first.Violations != 0 || first.Next != first.Cases || first.Seconds > 60 || first.Commit == "" || first.Core == "" {
		t.Errorf("%+v\n%s", first, said.all())
	}
	var out, errs bytes.Buffer
	if code := run([]string{"prove", "--for", "1s", "--kind", "seeds", "--into", into}, &out, &errs); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	second := proved(t, into, 2)
	if second.Cases == 0 || second.Violations != 0 || second.Next != first.Next+second.Cases {
		t.Errorf("after %+v\ncame  %+v", first, second)
	}
	if !strings.Contains(out.String(), proof.Number(second.Next)) {
		t.Errorf("%d cases are not in the table:\n%s", second.Next, out.String())
	}
}

// proved is the last of n lines.
func proved(t *testing.T, into string, n int) proof.Line {
	t.Helper()
	text, err := os.ReadFile(into)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := proof.Read(text)
	if err != nil || len(lines) != n {
		t.Fatalf("%d lines, %v:\n%s", len(lines), err, text)
	}
	return lines[n-1]
}

func TestProveListShowsViolationsOfThisCoreOnly(t *testing.T) {
	p := prover{}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	disk, err := proof.Named(p.kinds, []string{"disk"})
	if err != nil {
		t.Fatal(err)
	}
	for core, want := range map[string]int{disk[0].Core: 1, "another": 0} {
		p.into = filepath.Join(t.TempDir(), "proof.jsonl")
		if err := p.append(proof.Line{Core: core, Kind: "disk", Cases: 7, Violations: 1, Next: 7}); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		if code := run([]string{"prove", "--list", "--into", p.into}, &out, &errs); code != want {
			t.Errorf("core %s: exit %d\n%s%s", core, code, out.String(), errs.String())
		}
	}
}

// Several of them, in one checkout or with one file, lose no line of each other.
func TestProversAppendWholeLines(t *testing.T) {
	into := filepath.Join(t.TempDir(), "proof.jsonl")
	var provers sync.WaitGroup
	for n := range int64(8) {
		provers.Go(func() {
			p := prover{into: into}
			for i := range int64(50) {
				if err := p.append(proof.Line{Kind: "disk", Core: strings.Repeat("c", 500), Cases: n, Next: i}); err != nil {
					t.Error(err)
				}
				if _, err := p.lines(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	provers.Wait()
	proved(t, into, 400)
}

func TestMinutesOfFuzzingAreCountedFromWhatItSays(t *testing.T) {
	for line, want := range map[string][2]int64{
		"fuzz: elapsed: 5m0s, execs: 1234567 (4115/sec), new interesting: 3 (total: 40)": {5, 1234567},
		"fuzz: elapsed: 2m59s, execs: 9 (0/sec), new interesting: 0 (total: 4)":          {3, 9}, // the end comes in the last second
		"fuzz: elapsed: 57s, execs: 9 (0/sec), new interesting: 0 (total: 4)":            {0, 9},
		"fuzz: elapsed: 3s, gathering baseline coverage: 0/9 completed":                  {0, 0},
		"": {0, 0},
	} {
		if minutes, executions := fuzzed(line); minutes != want[0] || executions != want[1] {
			t.Errorf("%q: %d minutes, %d executions", line, minutes, executions)
		}
	}
}

func TestProveSaysWhereItCanRun(t *testing.T) {
	t.Chdir(t.TempDir())
	var out, errs bytes.Buffer
	if code := run([]string{"prove", "--list"}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "git clone") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

// What is tested is named by its commit only if it is that.
func TestCommitOfAChangedCoreIsDirty(t *testing.T) {
	top := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", top, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: git %v: %v %s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := commitOf(top); got != "unknown" {
		t.Errorf("without git: %s", got)
	}
	git("init", "-q")
	write("a.go", "package a\n")
	git("add", "a.go")
	git("commit", "-q", "-m", "a")
	clean := commitOf(top)
	if strings.Contains(clean, "dirty") || len(clean) != 12 {
		t.Errorf("as committed: %s", clean)
	}
	write("README.md", "a\n")
	write("a_test.go", "package a\n")
	if got := commitOf(top); got != clean {
		t.Errorf("a page was changed: %s", got)
	}
	write("b.go", "package a\n")
	if got := commitOf(top); got != clean+"-dirty" {
		t.Errorf("a file was added: %s", got)
	}
}
