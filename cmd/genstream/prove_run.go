package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof"
)

// ran is what came of a run.
type ran struct {
	proof.Report
	line  *proof.Line // nil: there is nothing to keep
	took  time.Duration
	broke bool // it failed, or could not be built
}

// run is one run of one kind, told of while it lasts.
func (p *prover) run(ctx context.Context, s proof.Step) (r ran) {
	if s.Root && os.Geteuid() != 0 {
		fmt.Fprintf(p.progress, "%s: SKIPPED: needs root\n", s.Name)
		return r
	}
	dir, err := os.MkdirTemp("", "genstream-prove-*")
	if err != nil {
		return p.unable(s, err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "long.test")
	if s.Name == proof.Fuzz {
		return p.fuzz(ctx, s, program)
	}
	if err := p.build(ctx, s.Name, program, s.Package, "-tags", s.Tag); err != nil {
		return p.unable(s, err)
	}
	list := exec.CommandContext(ctx, program, "-test.list", s.Run)
	list.Dir = filepath.Join(p.top, filepath.FromSlash(s.Package))
	if names, err := list.Output(); err != nil || len(bytes.TrimSpace(names)) == 0 {
		fmt.Fprintf(p.progress, "%s: not here\n", s.Name)
		return r
	}
	fmt.Fprintf(p.progress, "%s: for %s, from case %d\n", s.Name, s.For.Round(time.Second), s.From)
	c := exec.Command(program, "-test.run", s.Run, "-test.v", "-test.count", "1", "-test.timeout", "0")
	c.Dir = list.Dir
	c.Env = append(plainEnv(), s.Env(s.From, s.Cases, s.For)...)
	h := &heard{name: s.Name, progress: p.progress, long: s.For}
	began := time.Now()
	err = h.run(ctx, c)
	r = ran{Report: h.report, took: time.Since(began)}
	if h.report.Kind == "" && err == nil || h.report.Kind == "" && ctx.Err() != nil {
		fmt.Fprintf(p.progress, "%s: nothing counted%s\n", s.Name, h.skipped)
		return r
	}
	if err != nil && r.Violations == 0 {
		r.Violations = 1
	}
	if r.Kind == "" { // it died before it could say
		r.Next = s.From
	}
	p.keep(&r, s.Kind, proof.Target{Core: s.Core})
	if err != nil {
		p.tell(s, h.said.Bytes(), err)
		r.broke = true
	}
	return r
}

// keep makes the line of a run of a kind, or of one target of it.
func (p *prover) keep(r *ran, k proof.Kind, of proof.Target) {
	r.line = &proof.Line{
		At: time.Now().UTC().Truncate(time.Second), Commit: p.commit, Core: of.Core, Kind: k.Name,
		Cases: r.Cases, Violations: r.Violations, Seconds: float64(r.took.Milliseconds()) / 1000, Next: r.Next, Figures: r.Figures,
	}
	if of.Name != "" {
		r.line.Target = of.String()
	}
	fmt.Fprintf(p.progress, "%s: %s cases in %s, %d violations\n", k.Name, proof.Number(r.Cases), r.took.Round(time.Second), r.Violations)
}

// tell shows what of a failed run's output says why, and how to repeat it.
func (p *prover) tell(s proof.Step, said []byte, err error) {
	name := ""
	if f, err := os.CreateTemp("", "genstream-prove-"+s.Name+"-*.log"); err == nil {
		_, err = f.Write(said)
		if errors.Join(err, f.Close()) == nil {
			name = f.Name()
		}
	}
	fmt.Fprintf(p.progress, "%s: %v\n", s.Name, err)
	shown := 0
	for line := range bytes.Lines(said) {
		if shown < 40 && (bytes.Contains(line, []byte("FAIL")) || bytes.Contains(line, []byte("repeat")) || bytes.Contains(line, []byte(".go:")) || bytes.HasPrefix(line, []byte("panic:"))) {
			fmt.Fprintf(p.progress, "  %.300s\n", bytes.TrimSpace(line))
			shown++
		}
	}
	if name != "" {
		fmt.Fprintf(p.progress, "%s: all of what it said is in %s\n", s.Name, name)
	}
	fmt.Fprintf(p.progress, "%s: repeat it with: %s\n", s.Name, s.Command(s.From, s.Cases, s.For))
}

func (p *prover) unable(s proof.Step, err error) ran {
	fmt.Fprintf(p.progress, "%s: cannot be run: %v\n", s.Name, err)
	return ran{broke: true}
}

// build builds a test.
func (p *prover) build(ctx context.Context, kind, program, folder string, args ...string) error {
	fmt.Fprintf(p.progress, "%s: building\n", kind)
	args = append(append([]string{"test", "-c", "-vet=off", "-o", program}, args...), folder)
	if out, err := p.goes(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// goes is the go command at the top of the checkout.
func (p *prover) goes(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = p.top
	c.Env = plainEnv()
	return c
}

// plainEnv is the environment without what would have a test do something else.
func plainEnv() (env []string) {
	for _, one := range os.Environ() {
		if !strings.HasPrefix(one, "GENSTREAM_") {
			env = append(env, one)
		}
	}
	return env
}

// heard is what a test says while it runs.
type heard struct {
	name     string
	progress io.Writer
	long     time.Duration

	mu      sync.Mutex
	said    bytes.Buffer
	read    int // of said, up to the last whole line
	begun   int // subtests
	report  proof.Report
	skipped string
	fuzzed  string // the last that was said of how far fuzzing has come
}

// run runs c to its end, and tells it alone to stop when ctx ends. An interrupt at
// the terminal would reach the programs that a test runs as well, so c is the first
// of a group of its own. A second interrupt kills that.
func (h *heard) run(ctx context.Context, c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Stdout, c.Stderr, c.WaitDelay = h, h, 10*time.Second
	if err := c.Start(); err != nil {
		return err
	}
	group := -c.Process.Pid
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		fmt.Fprintf(h.progress, "%s: the cases under way are let end; Ctrl-C again kills them\n", h.name)
		_ = syscall.Kill(c.Process.Pid, syscall.SIGINT)
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(again)
		select {
		case <-ended:
		case <-again:
			_ = syscall.Kill(group, syscall.SIGKILL)
		}
	}()
	go h.tick(ended)
	err := c.Wait()
	close(ended)
	_ = syscall.Kill(group, syscall.SIGKILL) // whatever a test that died has left
	if errors.Is(err, exec.ErrWaitDelay) {   // that it had our pipe
		return nil
	}
	return err
}

// Write takes what the test says.
func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said.Write(b)
	for {
		line, rest, whole := bytes.Cut(h.said.Bytes()[h.read:], []byte("\n"))
		if !whole {
			return len(b), nil
		}
		h.read = h.said.Len() - len(rest)
		h.line(string(line))
	}
}

func (h *heard) line(line string) {
	if r, ok := proof.Told(line); ok {
		h.report = r
	}
	if strings.HasPrefix(line, "fuzz: elapsed: ") {
		h.fuzzed = line
	}
	if strings.HasPrefix(line, "=== RUN ") && strings.Contains(line, "/") {
		h.begun++
	}
	if strings.Contains(line, "SKIPPED") || strings.Contains(line, "NO DISK") {
		h.skipped = ": " + strings.TrimSpace(line)
	}
}

// tick says now and then that it still runs.
func (h *heard) tick(ended <-chan struct{}) {
	began := time.Now()
	for wait := 2 * time.Second; ; wait = 30 * time.Second {
		select {
		case <-ended:
			return
		case <-time.After(wait):
			h.mu.Lock()
			begun := h.begun
			h.mu.Unlock()
			fmt.Fprintf(h.progress, "%s: %s of %s", h.name, time.Since(began).Round(time.Second), h.long.Round(time.Second))
			if begun > 0 {
				fmt.Fprintf(h.progress, ", %d begun", begun)
			}
			fmt.Fprintln(h.progress)
		}
	}
}
