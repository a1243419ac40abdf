// Package fault has the program break on purpose, at either side of every step
// that something durable rests on.
//
// # Usage
//
// In the code, one line for each step, which makes two points of it:
//
//	err := fault.Around("file.sync", func() error { return b.sync(ctx) })
//
// On the command line, one fault for the life of a process: the seventh time that
// an append is about to be sent, the process kills itself.
//
//	GENSTREAM_FAULT=append.before:kill:7 genstream up
//
// The modes are Kill (SIGKILL, as the kernel's out-of-memory killer sends it),
// Panic, Stall (5 s, as a disk or a network that hangs) and Error. Points has what
// they are, where they stand, and what a restart finds if the process dies there.
//
// # Guarantees
//
// Without Arm nothing ever happens, and a point costs one atomic load: about a
// nanosecond (BenchmarkOff). Only the command calls Arm, once, before everything
// else. A fault fires once.
package fault

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The modes of a fault.
const (
	Kill  = "kill"  // SIGKILL to itself
	Panic = "panic" // of the goroutine that came by
	Stall = "stall" // of that goroutine, for StallTime
	Error = "error" // is what the step returns; only where Point.Errors
)

// StallTime is longer than any request waits for an answer (4 s, as package
// orchestrator has it), and as long as Runware waits for one to its webhooks.
const StallTime = 5 * time.Second

// Err is the error of mode Error.
var Err = errors.New("a fault on purpose")

// armed is the fault of this process, nil for none. It is a variable of the package
// because the points are everywhere, and have nothing else in common.
var armed atomic.Pointer[trap]

// trap is a fault that waits for its moment.
type trap struct {
	point, mode string
	left        atomic.Int64 // hits until it fires
	told        io.Writer
}

// Arm sets the fault that spec says: point, mode and at which hit, with colons
// between them; empty for none. When it fires, told gets one line first.
func Arm(spec string, told io.Writer) error {
	if spec == "" {
		return nil
	}
	parts := strings.Split(spec, ":")
	if len(parts) != 3 {
		return fmt.Errorf("fault %q is not point:mode:hit", spec)
	}
	nth, err := strconv.ParseInt(parts[2], 10, 32)
	if err != nil || nth < 1 {
		return fmt.Errorf("fault %q: the hit is a number from 1", spec)
	}
	for _, p := range Points() {
		if p.Name != parts[0] {
			continue
		}
		for _, mode := range p.Modes() {
			if mode == parts[1] {
				t := &trap{point: p.Name, mode: mode, told: told}
				t.left.Store(nth)
				armed.Store(t)
				return nil
			}
		}
		return fmt.Errorf("fault %q: the modes of %s are %s", spec, p.Name, strings.Join(p.Modes(), ", "))
	}
	return fmt.Errorf("fault %q: there is no such point", spec)
}

// Hit is a point by itself. It returns nil unless a fault of mode Error fires here.
func Hit(point string) error {
	if t := armed.Load(); t != nil {
		return t.hit(point)
	}
	return nil
}

// Around is a step between two points, <name>.before and, if it went well,
// <name>.after. The error is the step's or that of a point.
func Around(name string, step func() error) error {
	t := armed.Load()
	if t == nil {
		return step()
	}
	if err := t.hit(name + ".before"); err != nil {
		return err
	}
	if err := step(); err != nil {
		return err
	}
	return t.hit(name + ".after")
}

func (t *trap) hit(point string) error {
	if point != t.point || t.left.Add(-1) != 0 {
		return nil
	}
	fmt.Fprintf(t.told, "fault: %s: %s\n", t.point, t.mode)
	switch t.mode {
	case Kill:
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) // we may always send it to ourselves
		select {}
	case Panic:
		panic("fault: " + t.point)
	case Stall:
		time.Sleep(StallTime)
		return nil
	}
	return fmt.Errorf("%s: %w", t.point, Err)
}
