package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/cmd/genstream/bench/instant"
)

func benchRestartCommand(o *benchOptions) *cobra.Command {
	var count int
	c := &cobra.Command{
		Use:   "restart",
		Short: "measure a start after SIGKILL with many generations in flight",
		Long: `restart brings generations in flight in a server process beside this one, with a provider that
keeps its webhooks back. Then it kills the server with SIGKILL, starts it again, and has the
provider send everything, over and over until it is taken. The clock runs from the start.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := benchRestart(cmd.Context(), *o, count, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.tell(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().IntVar(&count, "in-flight", 10_000, "generations of one output in flight")
	return c
}

// restartReport is what bench restart found. The seconds run from the second start.
type restartReport struct {
	InFlight int     `json:"in_flight"`
	Memory   float64 `json:"rss_in_flight_mb"`
	First    float64 `json:"first_webhook_seconds"`
	All      float64 `json:"all_rows_seconds"`
	Refused  int64   `json:"webhooks_refused"` // answered, but not 2xx
	Filling  float64 `json:"accepted_per_second"`
}

// victim is the server that is killed.
type victim struct {
	args []string
	api  *client
	cmd  *exec.Cmd
}

func benchRestart(ctx context.Context, o benchOptions, count int, progress io.Writer) (r restartReport, err error) {
	r.InFlight = count
	dir, err := os.MkdirTemp(o.data, "genstream-bench-*")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	p := instant.New()
	defer p.Close()
	p.Hold()
	server := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	defer server.Close()
	go server.Serve(l)
	v, err := newVictim(dir, "http://"+l.Addr().String()+"/v1")
	if err != nil {
		return r, err
	}
	defer v.kill()
	if err := v.start(ctx); err != nil {
		return r, err
	}
	began := time.Now()
	if err := v.create(ctx, count); err != nil {
		return r, err
	}
	r.Filling = float64(count) / time.Since(began).Seconds()
	for p.Held() < count {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return r, err
		}
	}
	r.Memory = residentOf(v.cmd.Process.Pid)
	fmt.Fprintf(progress, "%d in flight, killed and started again\n", count)
	v.kill()
	p.Release(64)
	began = time.Now()
	return r, v.recover(ctx, p, began, &r)
}

// recover starts the server again, and sees when it is whole.
func (v *victim) recover(ctx context.Context, p *instant.Provider, began time.Time, r *restartReport) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() {
		for p.Answered() == 0 {
			if pause(ctx, time.Millisecond) != nil {
				return
			}
		}
		r.First = time.Since(began).Seconds()
	})
	if err := v.start(ctx); err != nil {
		return err
	}
	for after, rows := uint64(0), 0; rows < r.InFlight; {
		var page struct {
			Generations []struct{ ID string } `json:"generations"`
			Next        uint64                `json:"next"`
		}
		if err := v.api.get(ctx, fmt.Sprintf("/v1/changes?after=%d&wait=2s&limit=200", after), &page); err != nil {
			return err
		}
		rows += len(page.Generations)
		after = page.Next
	}
	r.All, r.Refused = time.Since(began).Seconds(), p.Refused()
	return nil
}

func newVictim(dir, provider string) (*victim, error) {
	var ports [2]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		ports[i] = l.Addr().String()
		l.Close() // the server takes it again
	}
	file := filepath.Join(dir, "config.json")
	settings, err := json.Marshal(map[string]any{
		"providers": []map[string]any{{"name": "instant", "kind": "runware", "url": provider, "key": "bench", "concurrent": 64}},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		return nil, err
	}
	return &victim{
		args: []string{"up", "--data", filepath.Join(dir, "data"), "--listen", ports[0], "--hooks-listen", ports[1], "--webhook-url", "http://" + ports[1], "--config", file},
		api:  &client{base: "http://" + ports[0], http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}},
	}, nil
}

// start returns once the server answers.
func (v *victim) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	v.cmd = exec.CommandContext(ctx, self, v.args...)
	v.cmd.Stderr = os.Stderr
	if err := v.cmd.Start(); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	for range 3000 {
		res, err := v.api.http.Get(v.api.base + "/healthz")
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("start server: it does not answer")
}

// kill is SIGKILL.
func (v *victim) kill() {
	if v.cmd != nil && v.cmd.Process != nil {
		_ = v.cmd.Process.Kill() // it may have ended
		_ = v.cmd.Wait()
	}
}

// create asks for so many generations, 64 at a time.
func (v *victim) create(ctx context.Context, count int) error {
	body := []byte(`{"model":"runware:101@1","input":{"positivePrompt":"a red fox in neon rain, 35mm","width":1024,"height":1024,"outputType":"base64Data"}}`)
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, 64)
	for i := range errs {
		all.Go(func() {
			for errs[i] == nil && next.Add(1) <= int64(count) {
				res, err := v.api.do(ctx, http.MethodPost, "/v1/generations", body)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (r restartReport) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d generations in flight, SIGKILL, started again\n\n", r.InFlight)
	fmt.Fprintf(w, "  %-34s %12.0f\n", "memory in flight, MB", r.Memory)
	fmt.Fprintf(w, "  %-34s %12.0f\n", "accepted before, generations/s", r.Filling)
	fmt.Fprintf(w, "  %-34s %12.2f\n", "first webhook taken, s", r.First)
	fmt.Fprintf(w, "  %-34s %12.2f\n", "all rows there, s", r.All)
	fmt.Fprintf(w, "  %-34s %12d\n", "webhooks answered other than 2xx", r.Refused)
}
