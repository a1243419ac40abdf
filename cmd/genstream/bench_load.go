package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/cmd/genstream/bench/fill"
	"github.com/genstream/genstream/cmd/genstream/bench/load"
	"github.com/genstream/genstream/events"
)

func benchLoadCommand(o *benchOptions) *cobra.Command {
	var sizes []int
	c := &cobra.Command{
		Use:   "load",
		Short: "measure how the costs grow with the log",
		Long: `load fills a log up to each of the sizes in turn. At each, a server process beside this one builds
the catalog from it, serves single generations by ID and lists, is killed with SIGKILL, and is
started again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := benchLoad(cmd.Context(), *o, sizes, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.tell(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().IntSliceVar(&sizes, "sizes", []int{10_000, 100_000, 1_000_000}, "generations in the log, growing")
	c.Flags().DurationVar(&o.long, "for", 5*time.Second, "how long each kind of request is measured")
	return c
}

// loadReport is what bench load found, one line for each size.
type loadReport struct {
	Sizes []loadLine `json:"sizes"`
}

// loadLine is one size. Memory is in MB of 10^6 bytes; requests come from 16 readers.
type loadLine struct {
	Generations int      `json:"generations"`
	CatchUp     float64  `json:"catch_up_per_second"` // generations a second into an empty catalog, or one of the size before
	ByID        readLine `json:"by_id"`
	Newest      readLine `json:"newest"`
	Memory      float64  `json:"rss_mb"`          // after that
	Restart     float64  `json:"restart_seconds"` // from SIGKILL until it is ready
	Restarted   float64  `json:"rss_restarted_mb"`
	LogBytes    float64  `json:"log_bytes"` // per generation, on disk
	RowBytes    float64  `json:"catalog_bytes"`
}

func benchLoad(ctx context.Context, o benchOptions, sizes []int, progress io.Writer) (r loadReport, err error) {
	if len(sizes) == 0 || !slices.IsSorted(sizes) || sizes[0] < 1 {
		return r, errors.New("--sizes are not growing")
	}
	dir, err := os.MkdirTemp(o.data, "genstream-bench-*")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	drive, err := startDriver(ctx)
	if err != nil {
		return r, err
	}
	defer drive.close()
	v, err := newVictim(dir, drive.provider)
	if err != nil {
		return r, err
	}
	defer v.kill()
	var ids []events.ID
	for _, size := range sizes {
		more, err := fill.Fill(ctx, filepath.Join(dir, "data", natsDir), size-len(ids), func(done int) {
			fmt.Fprintf(progress, "\r%d of %d generations written", len(ids)+done, size)
		})
		fmt.Fprintln(progress)
		if err == nil {
			err = settle(dir)
		}
		if err != nil {
			return r, err
		}
		ids = append(ids, more...)
		line, err := v.measure(ctx, o, drive, ids, len(more))
		if err != nil {
			return r, err
		}
		if line.LogBytes, err = perGeneration(filepath.Join(dir, "data", natsDir), size); err == nil {
			line.RowBytes, err = perGeneration(filepath.Join(dir, "data", catalogDir), size)
		}
		if err != nil {
			return r, err
		}
		r.Sizes = append(r.Sizes, line)
	}
	return r, nil
}

// measure starts the server on a log that has grown by so many generations, kills it
// and starts it again; then it is stopped for good.
func (v *victim) measure(ctx context.Context, o benchOptions, drive *driver, ids []events.ID, more int) (l loadLine, err error) {
	const readers = 16
	l.Generations = len(ids)
	began := time.Now()
	if err := v.start(ctx); err != nil {
		return l, err
	}
	if err := caughtUp(ctx, v.api.base, len(ids)); err != nil {
		return l, err
	}
	l.CatchUp = float64(more) / time.Since(began).Seconds()
	read := func(what string, paths ...string) (line readLine) {
		got, rerr := drive.read(load.Reads{API: v.api.base, Clients: readers, Paths: paths, For: o.long})
		err = errors.Join(err, rerr)
		return readLine{what, got.PerSecond(), ms(got.P50), ms(got.P99)}
	}
	l.ByID = read("one generation, from the log", chosen(ids, 2000)...)
	l.Newest = read("list: 50 newest", "/v1/generations?limit=50")
	if err != nil {
		return l, err
	}
	l.Memory = residentOf(v.cmd.Process.Pid)
	v.kill()
	began = time.Now()
	if err := v.start(ctx); err != nil {
		return l, err
	}
	if err := v.ready(ctx); err != nil {
		return l, err
	}
	l.Restart = time.Since(began).Seconds()
	l.Restarted = residentOf(v.cmd.Process.Pid)
	return l, v.stop()
}

// ready waits until the server says that it is.
func (v *victim) ready(ctx context.Context) error {
	for {
		res, err := v.api.http.Get(v.api.base + "/readyz")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// stop has the server end by itself, so that another may open its data.
func (v *victim) stop() error {
	if err := v.cmd.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	if err := v.cmd.Wait(); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	return nil
}

func perGeneration(path string, count int) (float64, error) {
	size, err := sizeOf(path)
	return float64(size) / float64(count), err
}

func (r loadReport) print(w io.Writer) {
	row := func(name, format string, of func(loadLine) float64) {
		fmt.Fprintf(w, "  %-38s", name)
		for _, l := range r.Sizes {
			fmt.Fprintf(w, " %12s", fmt.Sprintf(format, of(l)))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	row("generations in the log", "%.0f", func(l loadLine) float64 { return float64(l.Generations) })
	fmt.Fprintln(w)
	row("into the catalog, generations/s", "%.0f", func(l loadLine) float64 { return l.CatchUp })
	row("one by ID, requests/s", "%.0f", func(l loadLine) float64 { return l.ByID.PerSecond })
	row("  p50, ms", "%.2f", func(l loadLine) float64 { return l.ByID.P50 })
	row("  p99, ms", "%.2f", func(l loadLine) float64 { return l.ByID.P99 })
	row("50 newest, requests/s", "%.0f", func(l loadLine) float64 { return l.Newest.PerSecond })
	row("  p99, ms", "%.2f", func(l loadLine) float64 { return l.Newest.P99 })
	row("memory after that, MB", "%.0f", func(l loadLine) float64 { return l.Memory })
	row("from SIGKILL until it is ready, s", "%.2f", func(l loadLine) float64 { return l.Restart })
	row("memory then, MB", "%.0f", func(l loadLine) float64 { return l.Restarted })
	row("log on disk, bytes/generation", "%.0f", func(l loadLine) float64 { return l.LogBytes })
	row("catalog on disk, bytes/generation", "%.0f", func(l loadLine) float64 { return l.RowBytes })
}
