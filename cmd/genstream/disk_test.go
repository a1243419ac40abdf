package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// unguarded, as the value of asGenstream, has the program believe that there is
// always room, so that creates run into a full disk too.
const unguarded = "unguarded"

func runUnguarded(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := upCommandWith(wires{free: func(string) (int64, int64, error) { return 1 << 40, 1 << 40, nil }})
	c.SilenceUsage = true
	c.SetArgs(args)
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "genstream:", err)
		return 1
	}
	return 0
}

// The directories that stand on a disk of their own, and what becomes of it.
var (
	diskParts = [][]string{
		{"log"}, {"bucket"}, {"catalog"}, {"all"}, {"log", "bucket"}, {"log", "catalog"}, {"catalog", "bucket"},
	}
	diskModes = []diskMode{markPassed, full, fullUnguarded}
)

type diskMode string

const (
	markPassed    diskMode = "high mark passed" // creates are refused, the rest goes on
	full          diskMode = "full"             // nothing can be written, but for some bytes
	fullUnguarded diskMode = "full, unguarded"  // and creates were taken until then
)

// A disk that runs full loses nothing that was acknowledged and buys nothing
// twice, says why it refuses, and goes on by itself when there is room again.
//
// As root: GENSTREAM_DISK_RUNS=105 go test -tags disk -run DiskFull -v -timeout 1h ./cmd/genstream
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NO DISK WAS FULL: mounting one needs root")
	}
	runs := diskRuns
	if n, err := strconv.Atoi(os.Getenv("GENSTREAM_DISK_RUNS")); err == nil {
		runs = n
	}
	if err := mountDisk(t, t.TempDir()); err != nil {
		t.Skipf("NO DISK WAS FULL: %v", err)
	}
	run := prooftest.Begin(t, "disk")
	var sum diskTally
	places := make(chan struct{}, 4)
	t.Run("runs", func(t *testing.T) {
		var running sync.WaitGroup
		for i := range run.Cases(runs) {
			mode := diskModes[i%len(diskModes)]
			parts := diskParts[i/len(diskModes)%len(diskParts)]
			if runs < len(diskModes)*len(diskParts) && !run.Long() { // a few of each kind
				parts = [][]string{{"all"}, {"log"}, {"catalog", "bucket"}}[i%3]
			}
			places <- struct{}{}
			running.Go(func() {
				defer func() { <-places }()
				if !t.Run(fmt.Sprintf("%s %s %d", strings.Join(parts, "+"), mode, i), func(t *testing.T) { newFilled(t, parts, mode, &sum).run() }) {
					run.Violated(i)
				}
			})
		}
		running.Wait()
	})
	run.Figure("acknowledged", int(sum.acked.Load()))
	t.Logf("%d runs: %d creates acknowledged and all completed, %d refused for want of room, %d create calls, %d restarts of NATS, 0 of the process",
		sum.runs.Load(), sum.acked.Load(), sum.refused.Load(), sum.calls.Load(), sum.reopened.Load())
}

type diskTally struct{ runs, acked, refused, calls, reopened atomic.Int64 }

// filled is the program on disks that run full.
type filled struct {
	*killed
	mode    diskMode
	parts   []string
	dirs    []string // of the disks that are filled
	sum     *diskTally
	said    logLines
	refused atomic.Int64
}

// diskSize is of each file system: a twentieth of it is the log's reserve.
const diskSize = 160 << 20

func newFilled(t *testing.T, parts []string, mode diskMode, sum *diskTally) *filled {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	f := &filled{mode: mode, parts: parts, sum: sum}
	for _, part := range parts {
		dir := filepath.Join(data, map[string]string{"log": natsDir, "bucket": "bucket", "catalog": catalogDir, "all": ""}[part])
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := mountDisk(t, dir); err != nil {
			t.Fatal(err)
		}
		f.dirs = append(f.dirs, dir)
	}
	f.killed = newKilledIn(t, data)
	if mode == fullUnguarded {
		f.killed.mode = unguarded
	}
	f.errs = &f.said
	return f
}

// mountDisk puts a disk of its own under a directory, until the test has ended.
func mountDisk(t *testing.T, dir string) error {
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", diskSize), "tmpfs", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount: %w %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return nil
}

// fill leaves so many bytes of each disk.
func (f *filled) fill(leave int64) {
	f.t.Helper()
	for _, dir := range f.dirs {
		ballast, err := os.Create(f.ballast(dir))
		if err != nil {
			f.t.Fatal(err)
		}
		for err == nil { // in pieces: the program writes too meanwhile
			free, _, ferr := natsd.Free(dir)
			if ferr != nil {
				f.t.Fatal(ferr)
			}
			if free <= leave {
				break
			}
			_, err = ballast.Write(make([]byte, min(free-leave, 4<<20)))
		}
		if err := errors.Join(err, ballast.Close()); err != nil && !errors.Is(err, syscall.ENOSPC) {
			f.t.Fatal(err)
		}
	}
}

func (f *filled) empty() {
	for _, dir := range f.dirs {
		if err := os.Remove(f.ballast(dir)); err != nil {
			f.t.Error(err)
		}
	}
}

func (f *filled) ballast(dir string) string { return filepath.Join(dir, ".ballast") }

func (f *filled) run() {
	f.t.Helper()
	f.start()
	ended := make(chan struct{})
	cmd := f.cmd
	var exit error
	go func() { exit = cmd.Wait(); close(ended) }()
	f.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	ctx, stop := context.WithCancel(f.t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				f.createOrRefused(ctx, 1+i%4)
			}
		})
	}
	alive := func() {
		f.t.Helper()
		select {
		case <-ended:
			f.t.Fatalf("the program ended by itself: %v\n%s", exit, f.said.all())
		default:
		}
	}
	<-time.After(300*time.Millisecond + rand.N(700*time.Millisecond))
	before := f.ids()
	mark := createMark(diskSize)
	if f.mode == markPassed {
		f.fill(mark * 3 / 4)
		f.refusing()
		f.completes(f.ids(), "above the mark, in the reserve")
	} else {
		f.fill(rand.N(int64(24 << 10)))
		if f.mode == full {
			f.refusing()
		}
		f.named()
		<-time.After(500*time.Millisecond + rand.N(1500*time.Millisecond))
		if !slices.Contains(f.parts, "log") && !slices.Contains(f.parts, "all") { // the log goes on, so creates that were taken are answered
			f.reads(before)
		}
	}
	alive()
	f.empty()
	began := time.Now()
	f.creates(ctx)
	f.t.Logf("creates are taken %s after there was room", time.Since(began).Round(time.Millisecond))
	<-time.After(200 * time.Millisecond)
	stop()
	load.Wait()
	f.completes(f.ids(), "after there was room again")
	f.t.Logf("all of it is completed %s after there was room", time.Since(began).Round(time.Millisecond))
	f.healthy()
	alive()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Fatal(err)
	}
	<-ended
	if exit != nil {
		f.t.Errorf("after SIGTERM: %v", exit)
	}
	f.check()
	if f.t.Failed() {
		f.t.Log(f.said.all())
	}
	reopened := strings.Count(f.said.all(), "NATS is started again")
	f.t.Logf("%d creates refused, NATS started again %d times", f.refused.Load(), reopened)
	f.sum.runs.Add(1)
	f.sum.acked.Add(int64(len(f.acked)))
	f.sum.refused.Add(f.refused.Load())
	f.sum.calls.Add(int64(f.calls))
	f.sum.reopened.Add(int64(reopened))
}

// createOrRefused asks until it is acknowledged, and counts refusals.
func (f *filled) createOrRefused(ctx context.Context, count int) {
	id := streamtest.NewID()
	for ctx.Err() == nil {
		switch code, problem, after := f.put(ctx, id, count); {
		case code == http.StatusAccepted:
			f.mu.Lock()
			f.acked[id] = true
			f.mu.Unlock()
			return
		case code == http.StatusServiceUnavailable:
			f.refused.Add(1)
			if after == "" {
				f.t.Errorf("503 without Retry-After: %s", problem)
			}
		case code != 0:
			f.t.Errorf("create: %d %s", code, problem)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
