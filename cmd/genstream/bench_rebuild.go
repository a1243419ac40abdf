package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/projector"
)

func benchRebuildCommand(o *benchOptions) *cobra.Command {
	var count int
	c := &cobra.Command{
		Use:   "rebuild",
		Short: "measure building the catalog again from the log",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := benchRebuild(cmd.Context(), *o, count, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.tell(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().IntVar(&count, "generations", 100_000, "generations in the log, which is filled first")
	return c
}

// rebuildReport is what bench rebuild found.
type rebuildReport struct {
	Generations int     `json:"generations"`
	Commits     uint64  `json:"commits"`
	Seconds     float64 `json:"seconds"`
	PerSecond   float64 `json:"generations_per_second"`
	CPU         float64 `json:"cpu_ms"`        // per generation
	LogBytes    float64 `json:"log_bytes"`     // per generation
	RowBytes    float64 `json:"catalog_bytes"` // per generation
	Peak        float64 `json:"rss_peak_mb"`
}

func benchRebuild(ctx context.Context, o benchOptions, count int, progress io.Writer) (r rebuildReport, err error) {
	dir, _, err := o.filled(ctx, count, progress)
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	s, err := openStored(ctx, config{Data: dir, Bucket: "file://" + filepath.ToSlash(filepath.Join(dir, "bucket"))})
	if err != nil {
		return r, err
	}
	defer s.close()
	p, err := projector.New(ctx, projector.Config{
		Log: s.log, Dir: filepath.Join(dir, catalogDir), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return r, err
	}
	defer p.Close()
	memory := watchMemory()
	started, used := time.Now(), cpuTime()
	err = p.Rebuild(ctx, nil)
	took := time.Since(started)
	used = cpuTime() - used
	r.Peak = memory()
	if err != nil {
		return r, err
	}
	n, err := p.Current().Counts(ctx)
	if err != nil {
		return r, err
	}
	if int(n.Generations) != count {
		return r, fmt.Errorf("the run is void: %d of %d generations are in the catalog", n.Generations, count)
	}
	commits, bytes, err := s.log.Size(ctx)
	if err != nil {
		return r, err
	}
	rows, err := sizeOf(p.Current().Path())
	if err != nil {
		return r, err
	}
	r.Generations, r.Commits, r.Seconds, r.PerSecond = count, commits, took.Seconds(), float64(count)/took.Seconds()
	r.CPU = ms(used) / float64(count)
	r.LogBytes, r.RowBytes = float64(bytes)/float64(count), float64(rows)/float64(count)
	return r, nil
}

func (r rebuildReport) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d generations in %d commits: %.1f s, %.0f generations/s\n\n", r.Generations, r.Commits, r.Seconds, r.PerSecond)
	fmt.Fprintf(w, "  %-34s %12.3f\n", "CPU/generation, ms", r.CPU)
	fmt.Fprintf(w, "  %-34s %12.0f\n", "log, bytes/generation", r.LogBytes)
	fmt.Fprintf(w, "  %-34s %12.0f\n", "catalog, bytes/generation", r.RowBytes)
	fmt.Fprintf(w, "  %-34s %12.0f\n", "memory at most, MB", r.Peak)
}
