package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/cmd/genstream/bench/fill"
	"github.com/genstream/genstream/cmd/genstream/bench/load"
	"github.com/genstream/genstream/events"
)

func benchReadCommand(o *benchOptions) *cobra.Command {
	var count, clients int
	c := &cobra.Command{
		Use:   "read",
		Short: "measure reading: lists from the catalog, and one generation from the log",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := benchRead(cmd.Context(), *o, count, clients, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.tell(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().IntVar(&count, "generations", 100_000, "generations in the log and the catalog, which are filled first")
	c.Flags().IntVar(&clients, "clients", 16, "readers, each with one request at a time")
	c.Flags().DurationVar(&o.long, "for", 5*time.Second, "how long each kind of request is measured")
	return c
}

// readReport is what bench read found.
type readReport struct {
	Generations int        `json:"generations"`
	Clients     int        `json:"clients"`
	CatchUp     float64    `json:"catch_up_per_second"` // generations a second that the catalog took from the log
	Reads       []readLine `json:"reads"`
}

// readLine is one kind of request.
type readLine struct {
	What      string  `json:"what"`
	PerSecond float64 `json:"requests_per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

func benchRead(ctx context.Context, o benchOptions, count, clients int, progress io.Writer) (r readReport, err error) {
	r = readReport{Generations: count, Clients: clients}
	dir, ids, err := o.filled(ctx, count, progress)
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	drive, err := startDriver(ctx)
	if err != nil {
		return r, err
	}
	defer drive.close()
	started := time.Now()
	c, err := openProduct(ctx, where{dir: dir, provider: drive.provider, clients: clients, fsync: fsyncGate})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := caughtUp(ctx, c.api, count); err != nil {
		return r, err
	}
	r.CatchUp = float64(count) / time.Since(started).Seconds()
	deep, err := deepPages(ctx, c.api, min(count/2/200, 250))
	if err != nil {
		return r, err
	}
	for _, kind := range []struct {
		what  string
		paths []string
	}{
		{"list: 50 newest", []string{"/v1/generations?limit=50"}},
		{"list: 50 newest of a model", models("/v1/generations?limit=50&model=runware:%d@1")},
		{"list: 50 newest failures", []string{"/v1/generations?limit=50&failed=true"}},
		{"list: 50 in the middle", deep},
		{"one generation, from the log", chosen(ids, 2000)},
	} {
		got, err := drive.read(load.Reads{API: c.api, Clients: clients, Paths: kind.paths, For: o.long})
		if err != nil {
			return r, err
		}
		line := readLine{kind.what, got.PerSecond(), ms(got.P50), ms(got.P99)}
		fmt.Fprintf(progress, "%-30s %7.0f requests/s\n", line.What, line.PerSecond)
		r.Reads = append(r.Reads, line)
	}
	return r, nil
}

// filled makes a data directory with so many completed generations in its log. The
// caller removes it.
func (o benchOptions) filled(ctx context.Context, count int, progress io.Writer) (dir string, ids []events.ID, err error) {
	if dir, err = os.MkdirTemp(o.data, "genstream-bench-*"); err != nil {
		return "", nil, err
	}
	ids, err = fill.Fill(ctx, filepath.Join(dir, natsDir), count, func(done int) {
		fmt.Fprintf(progress, "\r%d of %d generations written", done, count)
	})
	fmt.Fprintln(progress)
	if err == nil {
		err = settle(dir)
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, ids, nil
}

// caughtUp waits until so many generations are in the catalog.
func caughtUp(ctx context.Context, api string, count int) error {
	cl := &client{base: api, http: &http.Client{}}
	for {
		var n struct {
			Generations int `json:"generations"`
		}
		if err := cl.get(ctx, "/v1/counts", &n); err != nil {
			return err
		}
		if n.Generations >= count {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// deepPages are the paths of some pages far from the newest: it walks so many pages
// of 200, and takes the last ten.
func deepPages(ctx context.Context, api string, pages int) (paths []string, err error) {
	cl := &client{base: api, http: &http.Client{}}
	path := "/v1/generations?limit=200"
	for range pages {
		res, err := cl.do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return nil, err
		}
		next, _, more := strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
		if !more {
			break
		}
		path = next
		paths = append(paths, strings.Replace(path, "limit=200", "limit=50", 1))
	}
	if len(paths) == 0 {
		return nil, errors.New("there is only one page: give more --generations")
	}
	return paths[max(0, len(paths)-10):], nil
}

func models(format string) (paths []string) {
	for i := range 10 {
		paths = append(paths, fmt.Sprintf(format, 100+i))
	}
	return paths
}

// chosen are the paths of so many generations, by chance.
func chosen(ids []events.ID, count int) (paths []string) {
	for range count {
		paths = append(paths, "/v1/generations/"+string(ids[rand.IntN(len(ids))]))
	}
	return paths
}

func (r readReport) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d generations in log and catalog, %d readers\n\n", r.Generations, r.Clients)
	fmt.Fprintf(w, "  %-32s %12s %9s %9s\n", "", "requests/s", "p50, ms", "p99, ms")
	for _, l := range r.Reads {
		fmt.Fprintf(w, "  %-32s %12.0f %9.2f %9.2f\n", l.What, l.PerSecond, l.P50, l.P99)
	}
	fmt.Fprintf(w, "\n  a node that starts with an empty catalog takes %.0f generations/s from the log\n", r.CatchUp)
}
