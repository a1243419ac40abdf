package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/genstream/genstream/cmd/genstream/bench/floor"
	"github.com/genstream/genstream/cmd/genstream/bench/load"
)

// The two programs of a bench.
const (
	nameProduct = "genstream"
	nameFloor   = "floor"
)

// benchRound is one program, measured once. Memory is in MB of 10^6 bytes; bytes
// are per generation.
type benchRound struct {
	Who          string  `json:"who"`
	Generations  int     `json:"generations"`
	PerSecond    float64 `json:"generations_per_second"`
	P50          float64 `json:"p50_ms"`
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
	CPU          float64 `json:"cpu_ms"`        // per generation, of the process of the program alone
	DriverCPU    float64 `json:"driver_cpu_ms"` // per generation, of the clients and the provider
	Idle         float64 `json:"rss_idle_mb"`
	Peak         float64 `json:"rss_peak_mb"`
	Commits      float64 `json:"appends_per_generation"`
	Syncs        float64 `json:"syncs_per_second"` // shared: of the gate, and of the floor's log and files
	Refused      int64   `json:"webhooks_refused"`
	LogBytes     float64 `json:"log_bytes"`
	CatalogBytes float64 `json:"catalog_bytes"`
	BucketBytes  float64 `json:"bucket_bytes"`
}

// contender is a program that can be measured.
type contender struct {
	api                  string                                                // base URL
	counts               func() (generations, artifacts, commits, syncs int64) // so far
	close                func() error
	log, catalog, bucket string // folders or files
}

// where is what a program is started with.
type where struct {
	dir      string // of its data; it is there
	provider string // base URL
	clients  int    // so many create calls at a time are enough
	fsync    string // of the product
}

// benchOnce starts a program on a fresh directory, measures it and stops it.
// The directory stays until the whole run has ended: a file system that discards what
// is deleted makes the next round wait for it.
func benchOnce(ctx context.Context, who string, at where, d *driver, want load.Config, profile string) (r benchRound, err error) {
	if err := os.MkdirAll(at.dir, 0o700); err != nil {
		return r, err
	}
	if err := settle(at.dir); err != nil {
		return r, err
	}
	open := openProduct
	if who == nameFloor {
		open = openFloor
	}
	c, err := open(ctx, at)
	if err != nil {
		return r, err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, c.close())
		}
	}()
	r.Who, r.Idle = who, resident()
	want.API = c.api
	endProfile, err := profiling(profile)
	if err != nil {
		return r, err
	}
	var used time.Duration
	var commits, syncs int64
	memory := watchMemory()
	result, ends, err := d.run(want, func() {
		used = -cpuTime()
		_, _, before, was := c.counts()
		commits, syncs = -before, -was
	}, func() {
		used += cpuTime()
		_, _, after, are := c.counts()
		commits, syncs = commits+after, syncs+are
	})
	r.Peak = memory()
	if err := errors.Join(err, endProfile()); err != nil {
		return r, err
	}
	if result.Generations == 0 {
		return r, errors.New("no generation was completed while it was measured")
	}
	generations, artifacts, _, _ := c.counts()
	if generations != int64(result.All) || artifacts != generations*int64(want.Outputs) {
		return r, fmt.Errorf("the run is void: %d generations were driven, %d rows and %d artifacts are there", result.All, generations, artifacts)
	}
	closed = true
	if err := c.close(); err != nil {
		return r, err
	}
	n := float64(result.Generations)
	r.Generations, r.PerSecond = result.Generations, result.PerSecond()
	r.P50, r.P99, r.Max = ms(result.P50), ms(result.P99), ms(result.Max)
	r.CPU, r.DriverCPU = ms(used)/n, 1000*ends.CPU/n
	r.Commits, r.Syncs, r.Refused = float64(commits)/n, float64(syncs)/result.Seconds, ends.Refused
	for path, into := range map[string]*float64{c.log: &r.LogBytes, c.catalog: &r.CatalogBytes, c.bucket: &r.BucketBytes} {
		size, err := sizeOf(path)
		if err != nil {
			return r, err
		}
		*into = float64(size) / float64(result.All)
	}
	return r, nil
}

// openProduct runs a node as `genstream up` does.
func openProduct(ctx context.Context, at where) (c contender, err error) {
	hooks, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return c, err
	}
	cfg := config{
		Data: at.dir, Fsync: at.fsync, Listen: "127.0.0.1:0", HooksListen: hooks.Addr().String(), WebhookURL: "http://" + hooks.Addr().String(),
		Bucket: "file://" + filepath.ToSlash(filepath.Join(at.dir, "bucket")), Roles: []string{roleOrchestrator, roleIngress, roleAPI},
		Providers: []providerConfig{{Name: "instant", Kind: "runware", URL: at.provider, Key: "bench", Concurrent: at.clients}},
	}
	// The webhook address is told before the port is taken, so it is taken here.
	w := wires{listen: func(address string) (net.Listener, error) {
		if address == cfg.HooksListen {
			return hooks, nil
		}
		return net.Listen("tcp", address)
	}}
	n, err := openNode(ctx, cfg, w, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		hooks.Close()
		return c, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go spaceGarbage(running)
	go func() { ended <- n.run(running, nil) }()
	return contender{
		api: "http://" + n.api.Addr().String(),
		log: filepath.Join(at.dir, natsDir), catalog: filepath.Join(at.dir, catalogDir), bucket: filepath.Join(at.dir, "bucket"),
		counts: func() (generations, artifacts, commits, syncs int64) {
			k, err := n.projector.Current().Counts(ctx)
			if err != nil {
				return -1, -1, -1, -1 // which makes the run void
			}
			now := n.stream.Counts()
			return int64(k.Generations), int64(k.Artifacts), int64(now.Commits), int64(now.Syncs)
		},
		close: func() error {
			stop()
			err := <-ended
			n.close()
			return err
		},
	}, nil
}

// openFloor runs the bare program.
func openFloor(_ context.Context, at where) (c contender, err error) {
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return c, err
		}
	}
	f, err := floor.Open(floor.Config{Dir: at.dir, Provider: at.provider, Hooks: "http://" + listeners[1].Addr().String()})
	if err != nil {
		return c, err
	}
	servers := []*http.Server{{Handler: f.API(), ReadHeaderTimeout: 5 * time.Second}, {Handler: f.Webhooks(), ReadHeaderTimeout: 5 * time.Second}}
	for i, s := range servers {
		go s.Serve(listeners[i])
	}
	return contender{
		api: "http://" + listeners[0].Addr().String(),
		log: filepath.Join(at.dir, "log"), catalog: filepath.Join(at.dir, "catalog.db"), bucket: filepath.Join(at.dir, "files"),
		counts: func() (generations, artifacts, commits, syncs int64) {
			g, a := f.Counts()
			syncs, commits = f.Syncs()
			return int64(g), int64(a), commits, syncs
		},
		close: func() error {
			for _, s := range servers {
				s.Close()
			}
			return f.Close()
		},
	}, nil
}

// settle lets the disk and the memory be as if nothing had run before: what is left
// to write of the round before would be written by the next one's syncs.
func settle(dir string) error {
	debug.FreeOSMemory()
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// watchMemory looks at the process's memory ten times a second, until the func that
// it returns is called, which returns the most that was seen, in MB.
func watchMemory() (most func() float64) {
	var peak float64
	var looking sync.WaitGroup
	stop := make(chan struct{})
	looking.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, resident())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	return func() float64 {
		close(stop)
		looking.Wait()
		return peak
	}
}

func resident() float64 { return residentOf(os.Getpid()) }

// residentOf is the memory of a process in MB, 0 where the system does not tell
// (proc(5), /proc/pid/statm: the second number, in pages).
func residentOf(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	numbers := strings.Fields(string(b))
	if len(numbers) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(numbers[1])
	return float64(pages*os.Getpagesize()) / 1e6
}

// sizeOf is the bytes of all files below path.
func sizeOf(path string) (bytes int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
