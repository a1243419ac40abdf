// Package load drives a server that makes generations, in a closed loop: each of
// so many clients asks for one generation, waits until it is in the catalog, and
// asks for the next.
//
// # Usage
//
//	result, err := load.Run(ctx, load.Config{API: "http://127.0.0.1:8080", Clients: 64, Outputs: 1, For: 10 * time.Second}, nil, nil)
//
// # What is measured
//
// The time of a generation runs from before its request (POST /v1/generations)
// until its ID has come with GET /v1/changes, which all clients share one long
// poll of: nobody sleeps and asks again. A server has to have these two paths and
// nothing else, so that the product and the floor are driven by the same code.
//
// The clients run for a while before the measuring begins, and what they began
// before its end is completed after it; neither is counted.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is one run.
type Config struct {
	API     string        `json:"api"`     // base URL
	Clients int           `json:"clients"` // in the closed loop
	Outputs int           `json:"outputs"` // of each generation
	Inline  bool          `json:"inline"`  // outputs come as base64 in the webhook; else by URL
	Warm    time.Duration `json:"warm"`    // before the measuring begins
	For     time.Duration `json:"for"`     // of the measuring
}

// Result is what a run came to.
type Result struct {
	Generations int           `json:"generations"` // completed while it was measured
	All         int           `json:"all"`         // completed in the whole run
	Seconds     float64       `json:"seconds"`     // of the measuring
	P50         time.Duration `json:"p50_ns"`      // of a generation, from the request until its row was seen
	P99         time.Duration `json:"p99_ns"`
	Max         time.Duration `json:"max_ns"`
}

// PerSecond is generations per second.
func (r Result) PerSecond() float64 { return float64(r.Generations) / r.Seconds }

// Run drives the server. begin and end, if given, are called when the measuring
// begins and ends. The first answer that is not the expected one ends the run
// with an error.
func Run(ctx context.Context, cfg Config, begin, end func()) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &driver{cfg: cfg, body: body(cfg), waiting: map[string]chan struct{}{}, http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Clients + 1, DisableCompression: true},
	}}
	defer d.http.CloseIdleConnections()
	var feed, clients sync.WaitGroup
	following, unfollow := context.WithCancel(ctx)
	defer unfollow()
	feed.Go(func() {
		if err := d.follow(following); err != nil && following.Err() == nil {
			cancel(err)
		}
	})
	stop := make(chan struct{})
	all := make([][]span, cfg.Clients)
	for i := range all {
		clients.Go(func() {
			var err error
			if all[i], err = d.loop(ctx, stop); err != nil {
				cancel(err)
			}
		})
	}
	after := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	after(cfg.Warm)
	if begin != nil {
		begin()
	}
	from := time.Now()
	after(cfg.For)
	to := time.Now()
	if end != nil {
		end()
	}
	close(stop)
	clients.Wait()
	unfollow()
	feed.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, fmt.Errorf("drive %s: %w", cfg.API, err)
	}
	return summary(slices.Concat(all...), from, to), nil
}

// span is one generation.
type span struct{ from, to time.Time }

func summary(all []span, from, to time.Time) Result {
	r := Result{All: len(all), Seconds: to.Sub(from).Seconds()}
	var took []time.Duration
	for _, s := range all {
		if !s.to.Before(from) && s.to.Before(to) {
			took = append(took, s.to.Sub(s.from))
		}
	}
	r.ranks(took)
	return r
}

func (r *Result) ranks(took []time.Duration) {
	if r.Generations = len(took); r.Generations == 0 {
		return
	}
	slices.Sort(took)
	r.P50, r.P99, r.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
}

func body(cfg Config) []byte {
	kind := ""
	if cfg.Inline {
		kind = `,"outputType":"base64Data"`
	}
	return fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"input":{"positivePrompt":"a red fox in neon rain, 35mm","width":1024,"height":1024%s}}`,
		cfg.Outputs, kind)
}

type driver struct {
	cfg  Config
	body []byte
	http *http.Client

	mu      sync.Mutex
	waiting map[string]chan struct{} // by ID; closed once its row was seen, which may be before its creator knows the ID
}

// loop is one client. What it has begun when stop is closed it completes.
func (d *driver) loop(ctx context.Context, stop <-chan struct{}) (all []span, err error) {
	for {
		select {
		case <-stop:
			return all, nil
		case <-ctx.Done():
			return all, nil
		default:
		}
		s := span{from: time.Now()}
		id, err := d.create(ctx)
		if err != nil {
			return all, err
		}
		select {
		case <-d.row(id):
		case <-ctx.Done():
			return all, nil
		case <-time.After(time.Minute):
			return all, fmt.Errorf("generation=%s has no row after a minute", id)
		}
		s.to = time.Now()
		all = append(all, s)
		d.forget(id)
	}
}

// row is closed once the generation's row was seen.
func (d *driver) row(id string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.waiting[id]
	if c == nil {
		c = make(chan struct{})
		d.waiting[id] = c
	}
	return c
}

func (d *driver) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, id)
}

func (d *driver) create(ctx context.Context) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.cfg.API+"/v1/generations", bytes.NewReader(d.body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	var answer struct {
		ID string `json:"id"`
	}
	if err := d.do(req, http.StatusAccepted, &answer); err != nil {
		return "", err
	}
	return answer.ID, nil
}

// follow reads the changes, and tells who waits.
func (d *driver) follow(ctx context.Context) error {
	after := uint64(0)
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/changes?after=%d&wait=10s&limit=200", d.cfg.API, after), nil)
		if err != nil {
			return err
		}
		var page struct {
			Generations []struct {
				ID string `json:"id"`
			} `json:"generations"`
			Next uint64 `json:"next"`
		}
		if err := d.do(req, http.StatusOK, &page); err != nil {
			return err
		}
		after = page.Next
		for _, g := range page.Generations {
			close(d.row(g.ID))
		}
	}
	return nil
}

func (d *driver) do(req *http.Request, want int, into any) error {
	res, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return errors.New(req.Method + " " + req.URL.Path + ": " + res.Status + ": " + strings.TrimSpace(string(b)))
	}
	return json.Unmarshal(b, into)
}
