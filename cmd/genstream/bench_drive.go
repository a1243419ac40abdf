package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/genstream/genstream/cmd/genstream/bench/instant"
	"github.com/genstream/genstream/cmd/genstream/bench/load"
)

// driver is the process beside this one that holds the clients and the provider.
// Both talk in lines of JSON: driveCommand in, driveWord out.
type driver struct {
	provider string // base URL
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Scanner
}

// driveCommand is what it is told to do. One field is set.
type driveCommand struct {
	Load *load.Config `json:"load,omitempty"`
	Read *load.Reads  `json:"read,omitempty"`
}

// driveWord is what the driving process says. One field is set.
type driveWord struct {
	Provider string       `json:"provider,omitempty"` // it is there: the base URL of its provider
	Begins   bool         `json:"begins,omitempty"`   // the measuring begins
	Ends     *driveEnd    `json:"ends,omitempty"`     // it has ended, the clients go on to the end of what they began
	Result   *load.Result `json:"result,omitempty"`
	Error    string       `json:"error,omitempty"`
}

// driveEnd is what is known at the end of the measuring.
type driveEnd struct {
	CPU     float64 `json:"cpu_seconds"` // of driver and provider, while it was measured
	Refused int64   `json:"refused"`     // webhooks that were not taken at once
}

func startDriver(ctx context.Context) (*driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := &driver{cmd: exec.CommandContext(ctx, self, "bench", "drive")}
	d.cmd.Stderr = os.Stderr
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewScanner(out)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start driver: %w", err)
	}
	word, err := d.word()
	if err != nil {
		d.close()
		return nil, err
	}
	d.provider = word.Provider
	return d, nil
}

// close ends the process and waits for it.
func (d *driver) close() {
	d.in.Close()
	_ = d.cmd.Wait() // its last word said how it went
}

func (d *driver) word() (w driveWord, err error) {
	if !d.out.Scan() {
		return w, errors.Join(errors.New("the driver has ended"), d.out.Err())
	}
	if err := json.Unmarshal(d.out.Bytes(), &w); err != nil {
		return w, fmt.Errorf("read driver: %w", err)
	}
	if w.Error != "" {
		return w, errors.New(w.Error)
	}
	return w, nil
}

func (d *driver) tell(c driveCommand) error {
	if err := json.NewEncoder(d.in).Encode(c); err != nil {
		return fmt.Errorf("tell driver: %w", err)
	}
	return nil
}

// read has the driver read.
func (d *driver) read(cfg load.Reads) (load.Result, error) {
	if err := d.tell(driveCommand{Read: &cfg}); err != nil {
		return load.Result{}, err
	}
	w, err := d.word()
	if err != nil {
		return load.Result{}, err
	}
	return *w.Result, nil
}

// run has the driver drive. begin and end are called as the measuring begins and ends.
func (d *driver) run(cfg load.Config, begin, end func()) (r load.Result, ends driveEnd, err error) {
	if err := d.tell(driveCommand{Load: &cfg}); err != nil {
		return r, ends, err
	}
	for {
		w, err := d.word()
		switch {
		case err != nil:
			return r, ends, err
		case w.Begins:
			begin()
		case w.Ends != nil:
			end()
			ends = *w.Ends
		case w.Result != nil:
			return *w.Result, ends, nil
		}
	}
}

// benchDriveCommand is the other side. It ends when its input does.
func benchDriveCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "drive",
		Short:  "be the clients and the provider of bench",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return driving(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func driving(ctx context.Context, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := instant.New()
	defer p.Close()
	server := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	defer server.Close()
	go server.Serve(l)
	words := json.NewEncoder(out)
	say := func(w driveWord) { _ = words.Encode(w) } // if nobody listens, the input has ended too
	say(driveWord{Provider: "http://" + l.Addr().String() + "/v1"})
	for commands := json.NewDecoder(in); ; {
		var c driveCommand
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var r load.Result
		if c.Load != nil {
			r, err = loading(ctx, *c.Load, p, say)
		} else {
			r, err = load.Read(ctx, *c.Read)
		}
		if err != nil {
			say(driveWord{Error: err.Error()})
			continue
		}
		say(driveWord{Result: &r})
	}
}

// loading tells when the measuring begins and ends, so that this and the measured
// process count their CPU over the same time.
func loading(ctx context.Context, cfg load.Config, p *instant.Provider, say func(driveWord)) (load.Result, error) {
	var used time.Duration
	var refused int64
	return load.Run(ctx, cfg, func() {
		used, refused = cpuTime(), p.Refused()+p.Missed()
		say(driveWord{Begins: true})
	}, func() {
		say(driveWord{Ends: &driveEnd{CPU: (cpuTime() - used).Seconds(), Refused: p.Refused() + p.Missed() - refused}})
	})
}

// cpuTime is what this process has used so far, in user and system time.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
