package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/events/natsd/natsdtest"
)

// process is one process of the program on a cluster, with whoever starts it again
// when it has ended.
type process struct {
	t    *testing.T
	name string
	args []string
	at   string // address of /readyz
	link *natsdtest.Link
	said logLines

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{}
	err     error // of the exit; read after exited
	well    bool  // this process was ready once
	over    bool  // it is not started again
	ended   atomic.Int64
	tending sync.WaitGroup
}

// begin starts the process and has it tended until finish.
func (p *process) begin() {
	p.t.Helper()
	if err := p.start(); err != nil {
		p.t.Fatal(err)
	}
	p.tending.Go(p.tend)
	p.t.Cleanup(func() { // of a scenario that failed
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGKILL)
		p.tending.Wait()
	})
}

// start starts the process, unless it is not to be started again.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	cmd := exec.Command(os.Args[0], p.args...)
	cmd.Env = append(os.Environ(), asGenstream+"=1")
	cmd.Stderr = &p.said
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.well = cmd, exited, false
	go func() { p.err = cmd.Wait(); close(exited) }()
	return nil
}

// tend starts it again when it ends, as a supervisor does. One that was well and
// ended by itself is counted.
func (p *process) tend() {
	for {
		p.mu.Lock()
		exited := p.exited
		p.mu.Unlock()
		<-exited
		p.mu.Lock()
		over, well := p.over, p.well
		killed := p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
		p.mu.Unlock()
		if over {
			return
		}
		if well && !killed {
			p.ended.Add(1)
			p.t.Logf("%s ended by itself: %v\n%s", p.name, p.err, p.said.all())
		}
		<-time.After(300 * time.Millisecond)
		if err := p.start(); err != nil {
			p.t.Errorf("start %s: %v", p.name, err)
			return
		}
	}
}

// ready says whether it is ready.
func (p *process) ready() bool {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get("http://" + p.at + "/readyz")
	if err != nil {
		return false
	}
	drain(res.Body)
	if res.StatusCode != http.StatusOK {
		return false
	}
	p.mu.Lock()
	p.well = true
	p.mu.Unlock()
	return true
}

func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(sig)
}

// heal takes back what befell it.
func (p *process) heal() {
	p.link.Heal()
	p.signal(syscall.SIGCONT)
}

// finish stops it as an operator does.
func (p *process) finish() {
	p.t.Helper()
	p.mu.Lock()
	p.over = true
	exited := p.exited
	p.mu.Unlock()
	p.signal(syscall.SIGTERM)
	select {
	case <-exited:
		if p.err != nil {
			p.t.Errorf("%s after SIGTERM: %v\n%s", p.name, p.err, p.said.all())
		}
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s does not end after SIGTERM\n%s", p.name, p.said.all())
	}
}

// await returns once it ready, or ctx has ended.
func (p *process) await(ctx context.Context) bool {
	for ctx.Err() == nil {
		if p.ready() {
			return true
		}
		rest(ctx, 50*time.Millisecond)
	}
	return false
}
