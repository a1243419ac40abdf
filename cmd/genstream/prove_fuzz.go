package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof"
)

// fuzz gives the target whose turn it is some minutes, with one worker. Its corpus is
// where go test -fuzz keeps it, so each run begins with what those before have found.
func (p *prover) fuzz(ctx context.Context, s proof.Step, program string) (r ran) {
	t := s.Targets[s.From]
	if err := p.build(ctx, s.Name, program, t.Package, "-fuzz", "^"+t.Name+"$"); err != nil {
		return p.unable(s, err)
	}
	cache, err := p.goes(ctx, "env", "GOCACHE").Output()
	if err != nil {
		return p.unable(s, fmt.Errorf("ask go for its cache: %w", err))
	}
	corpus := filepath.Join(strings.TrimSpace(string(cache)), "fuzz", "github.com/genstream/genstream", filepath.FromSlash(t.Package))
	if err := os.MkdirAll(corpus, 0o777); err != nil {
		return p.unable(s, err)
	}
	fmt.Fprintf(p.progress, "%s: %d min of %s\n", s.Name, s.Cases, t)
	// What makes new coverage is made smaller for a minute, unless told otherwise.
	c := exec.Command(program, "-test.run", "^$", "-test.fuzz", "^"+t.Name+"$", "-test.fuzztime", s.For.String(), "-test.fuzzminimizetime", "1s",
		"-test.parallel", "1", "-test.fuzzcachedir", corpus, "-test.timeout", "0")
	c.Dir = filepath.Join(p.top, filepath.FromSlash(t.Package))
	c.Env = append(plainEnv(), s.Env(0, 0, 0)...)
	h := &heard{name: s.Name, progress: p.progress, long: s.For}
	err = h.run(ctx, c)
	minutes, executions := fuzzed(h.fuzzed)
	minutes = min(minutes, s.Cases) // more is what it took to end, or the machine was away
	r.Kind, r.Cases, r.took = s.Name, minutes, time.Duration(minutes)*time.Minute
	if ctx.Err() != nil && !bytes.Contains(h.said.Bytes(), []byte("--- FAIL")) {
		err = nil // whoever interrupted it twice has killed it
	}
	if err != nil {
		r.Violations, r.broke = 1, true
		fmt.Fprintf(p.progress, "%s: %s: %v\n%s\n", s.Name, t, err, h.said.Bytes())
		fmt.Fprintf(p.progress, "%s: the input is kept in testdata/fuzz; repeat it with: go test -run '^%s$' %s\n", s.Name, t.Name, t.Package)
	}
	if r.Cases == 0 && err == nil {
		fmt.Fprintf(p.progress, "%s: nothing counted\n", s.Name)
		return r
	}
	r.Figures = map[string]int64{"executions": executions}
	p.keep(&r, s.Kind, t)
	return r
}

var elapsed = regexp.MustCompile(`^fuzz: elapsed: (\S+), execs: (\d+)`)

// fuzzed is how many whole minutes a target has had, and how many inputs, by the
// last that was said of it: every three seconds, and at the end.
func fuzzed(line string) (minutes, executions int64) {
	m := elapsed.FindStringSubmatch(line)
	if m == nil {
		return 0, 0
	}
	d, err := time.ParseDuration(m[1])
	if err != nil {
		return 0, 0
	}
	executions, _ = strconv.ParseInt(m[2], 10, 64)
	return int64((d + time.Second) / time.Minute), executions
}
