package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/cmd/genstream/proof"
)

// Where a checkout keeps what was proved, and the page that tells of it.
const (
	proofName = "docs/proof.jsonl"
	pageName  = "docs/reliability.md"
)

func proveCommand() *cobra.Command {
	var p prover
	var list bool
	c := &cobra.Command{
		Use:     "prove",
		GroupID: "server",
		Short:   "repeat the proof: the long tests of a checkout, for as long as you like",
		Long: `prove runs the long tests of the source, one kind after the other, each for a share of
the time, and appends a line for each run to docs/proof.jsonl. It goes on where it stopped: with
the case after the last one, and with the kind that is furthest from its goal. Ctrl-C lets the
cases under way end, and counts them.

It needs a checkout and Go, no Docker, and no network once Go has the modules. Power cuts and full
disks need root, and are left out aloud without it. Simulation and fuzzing use one processor, the
others all: several of these commands may run at a time, for different kinds or fuzz targets, in one
checkout or in several. What was tried counts only for the code that the kind's test rests on,
comments apart: lines about another one are added up apart. Code that differs from the commit is
tested all the same, and its line says dirty; it counts once the same code is committed.

Exit code 1 means that something does not hold at this core, or that a test could not be run.`,
		Example: `  genstream prove --for 40m
  genstream prove --for 5m --kind crashes,power
  genstream prove --for 10m --target FuzzDecode
  genstream prove --list`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.progress = cmd.ErrOrStderr()
			if err := p.open(); err != nil {
				return err
			}
			bad := false
			if !list {
				var err error
				if bad, err = p.prove(cmd.Context()); err != nil {
					return err
				}
			}
			sums, err := p.sums()
			if err != nil {
				return err
			}
			if err := proof.Print(cmd.OutOrStdout(), sums); err != nil {
				return err
			}
			if bad || proof.Violations(sums) > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	f := c.Flags()
	f.DurationVar(&p.long, "for", 40*time.Minute, "how long, all kinds together, without the time to build them")
	f.StringSliceVar(&p.only, "kind", nil, "only these kinds, also beyond their goals; --list names them")
	f.StringVar(&p.target, "target", "", "only fuzz targets whose package and name match this regular expression, also beyond their goals")
	f.StringVar(&p.into, "into", "", "file that the lines are appended to (default: "+proofName+" of the checkout)")
	f.BoolVar(&list, "list", false, "run nothing: show what was tried so far")
	return c
}

// prover runs the long tests of a checkout.
type prover struct {
	long     time.Duration
	only     []string
	target   string // a regular expression; empty: all kinds
	into     string // empty: proofName
	progress io.Writer

	top    string // of the checkout
	commit string
	kinds  []proof.Kind // all
	wanted []proof.Kind // those to run
}

// open finds the checkout and looks at what it is.
func (p *prover) open() (err error) {
	if p.top, err = checkout(); err != nil {
		return err
	}
	if p.kinds, err = proof.Kinds(os.DirFS(p.top)); err != nil {
		return err
	}
	if p.wanted, err = proof.Named(p.kinds, p.only); err != nil {
		return err
	}
	if p.target != "" {
		only, err := regexp.Compile(p.target)
		if err != nil {
			return fmt.Errorf("--target: %w", err)
		}
		if p.wanted = proof.Matching(p.wanted, only); len(p.wanted) == 0 {
			return fmt.Errorf("--target %s: there is no fuzz target like that among the kinds that are to run", p.target)
		}
	}
	p.commit = commitOf(p.top)
	return nil
}

// checkout is the top of the module's source that this process stands in.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/genstream/genstream\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is in no checkout of genstream: `git clone https://github.com/genstream/genstream`, and prove in there", dir)
		}
	}
}

// commitOf is the commit of a checkout, with -dirty if its core is another than
// that of the commit; "unknown" without git.
func commitOf(top string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", top}, args...)...).Output()
		return string(out), err
	}
	commit, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "unknown"
	}
	commit = strings.TrimSpace(commit)
	changed, err := git("diff", "--name-only", "--no-renames", "-z", "HEAD")
	added, err2 := git("ls-files", "--others", "--exclude-standard", "-z")
	for one := range strings.SplitSeq(changed+added, "\x00") {
		if err != nil || err2 != nil || proof.InCore(one) {
			return commit + "-dirty"
		}
	}
	return commit
}

// lines is what was proved so far. Others may be about to append to it: what stands
// behind the last whole line is not there yet.
func (p *prover) lines() ([]proof.Line, error) {
	text, err := os.ReadFile(p.file())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	lines, err := proof.Read(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.file(), err)
	}
	return lines, nil
}

func (p *prover) file() string {
	if p.into != "" {
		return p.into
	}
	return filepath.Join(p.top, filepath.FromSlash(proofName))
}

func (p *prover) sums() ([]proof.Sum, error) {
	lines, err := p.lines()
	return proof.Add(p.kinds, lines), err
}

// prove runs one kind after the other until the time is over, and reports whether
// one broke. Kinds that cannot run here are told of once, and left out.
func (p *prover) prove(ctx context.Context) (broke bool, err error) {
	if _, err := exec.LookPath("go"); err != nil {
		return false, errors.New("prove builds the tests from source, and there is no go command: install Go (https://go.dev/dl), 1.26 or later")
	}
	if commit, dirty := strings.CutSuffix(p.commit, "-dirty"); dirty {
		fmt.Fprintf(p.progress, "the core differs from commit %s: what is proved counts for the code as it is now\n", commit)
	}
	out := map[string]bool{}   // for good
	round := map[string]bool{} // had their share
	left := p.long
	for ctx.Err() == nil {
		lines, err := p.lines()
		if err != nil {
			return broke, err
		}
		todo := proof.Order(proof.Add(p.wanted, lines), len(p.only) > 0 || p.target != "")
		todo = slices.DeleteFunc(todo, func(s proof.Sum) bool { return out[s.Name] })
		now := slices.DeleteFunc(slices.Clone(todo), func(s proof.Sum) bool { return round[s.Name] })
		if len(now) == 0 {
			if now = todo; left < time.Minute { // the rest of a share is not worth another start
				break
			}
			clear(round)
		}
		step, ok := proof.Plan(now, left)
		if !ok {
			break
		}
		round[step.Name] = true
		r := p.run(ctx, step)
		left -= r.took
		if r.Cases == 0 {
			out[step.Name] = true
		}
		broke = broke || r.broke
		if r.line == nil {
			continue
		}
		if err := p.append(*r.line); err != nil {
			return broke, err
		}
	}
	return broke, nil
}

// append keeps a line, and has the page say what it comes to. Several processes may
// do so at a time: the lock on the file is held until the page is written.
func (p *prover) append(l proof.Line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p.file(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", p.file(), err)
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("append to %s: %w", p.file(), err)
	}
	if p.into != "" { // the page tells of its own file
		return f.Close()
	}
	return errors.Join(p.rewrite(), f.Close())
}

// rewrite has the page show the sums.
func (p *prover) rewrite() error {
	page := filepath.Join(p.top, filepath.FromSlash(pageName))
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	sums, err := p.sums()
	if err != nil {
		return err
	}
	told, err := proof.Rewrite(string(text), proof.Table(sums))
	if err != nil {
		return fmt.Errorf("%s: %w", pageName, err)
	}
	if told == string(text) {
		return nil
	}
	if err := os.WriteFile(page+".new", []byte(told), 0o644); err != nil {
		return err
	}
	return os.Rename(page+".new", page)
}
