package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/cmd/genstream/bench/load"
	"github.com/genstream/genstream/cmd/genstream/bench/raw"
)

// benchOptions is what is measured.
type benchOptions struct {
	data    string
	clients int
	outputs int
	rounds  int
	long    time.Duration
	url     bool
	json    bool
	profile string
	fsync   string
}

func benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:     "bench",
		GroupID: "server",
		Short:   "measure this machine: generations a second, and how far that is from what is possible",
		Long: `bench runs a whole node in this process, and drives it in a closed loop over loopback HTTP
against a provider that answers at once: each client asks for a generation, waits until it is in
the catalog (told by a long poll), and asks for the next. In turns with it, the bare program runs
that only does what cannot be saved, driven by the same driver and the same provider. After that,
what both rest on is measured alone. Ratios of one run say something; figures of two do not.

The driver and the provider are one process beside this one, so that their CPU is told apart.`,
		Example: `  genstream bench
  genstream bench --clients 256 --outputs 4 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.fsync != fsyncGate && o.fsync != fsyncAlways {
				return fmt.Errorf("--fsync %q is neither %s nor %s", o.fsync, fsyncGate, fsyncAlways)
			}
			r, err := bench(cmd.Context(), o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.tell(cmd.OutOrStdout(), r)
		},
	}
	f := c.Flags()
	f.IntVar(&o.clients, "clients", 64, "clients, each with one generation at a time")
	f.IntVar(&o.outputs, "outputs", 1, "outputs of each generation, 1 to 20")
	f.DurationVar(&o.long, "for", 10*time.Second, "how long each round is measured")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of each program; the medians count")
	f.Bool("inline", true, "outputs come as base64 in the webhook")
	f.BoolVar(&o.url, "url", false, "outputs come as URLs, and are downloaded")
	c.MarkFlagsMutuallyExclusive("inline", "url")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of the first round here, and one of the floor beside it")
	f.StringVar(&o.fsync, "fsync", fsyncGate, "as of up: gate or always; the floor shares its syncs either way")
	c.PersistentFlags().StringVar(&o.data, "data", "", "folder in which temporary data is made, and removed (default: the system's)")
	c.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON")
	c.AddCommand(benchReadCommand(&o), benchRestartCommand(&o), benchRebuildCommand(&o), benchLoadCommand(&o), benchDriveCommand())
	return c
}

// tell prints what was found.
func (o benchOptions) tell(w io.Writer, r interface{ print(io.Writer) }) error {
	if !o.json {
		r.print(w)
		return nil
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// benchReport is what bench found.
type benchReport struct {
	Clients   int          `json:"clients"`
	Outputs   int          `json:"outputs"`
	Inline    bool         `json:"inline"`
	Fsync     string       `json:"fsync"`
	Seconds   float64      `json:"seconds_per_round"`
	Rounds    []benchRound `json:"rounds"` // in the order in which they ran
	Genstream benchRound   `json:"genstream"`
	Floor     benchRound   `json:"floor"`

	AppendsSynced   float64 `json:"raw_appends_per_second_synced"`
	AppendsUnsynced float64 `json:"raw_appends_per_second_unsynced"`
	Inserts         float64 `json:"raw_inserts_per_second"` // of whole generations

	// What genstream reaches of each, 1 = all. Appends are compared by commits.
	OfFloor           float64 `json:"of_floor"`
	OfAppendsSynced   float64 `json:"of_raw_appends_synced"`
	OfAppendsUnsynced float64 `json:"of_raw_appends_unsynced"`
	OfInserts         float64 `json:"of_raw_inserts"`
}

// bench alternates the floor and the product, so that what changes on the machine
// meanwhile changes both.
func bench(ctx context.Context, o benchOptions, progress io.Writer) (benchReport, error) {
	r := benchReport{Clients: o.clients, Outputs: o.outputs, Inline: !o.url, Fsync: o.fsync, Seconds: o.long.Seconds()}
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
	want := load.Config{Clients: o.clients, Outputs: o.outputs, Inline: !o.url, Warm: min(1500*time.Millisecond, o.long/4), For: o.long}
	var floors, products []benchRound
	for i := range o.rounds {
		for _, who := range []string{nameFloor, nameProduct} {
			profile := ""
			if o.profile != "" && i == 0 {
				profile = o.profile
				if who == nameFloor {
					profile += ".floor"
				}
			}
			at := where{filepath.Join(dir, fmt.Sprintf("%s-%d", who, i)), drive.provider, o.clients, o.fsync}
			one, err := benchOnce(ctx, who, at, drive, want, profile)
			if err != nil {
				return r, fmt.Errorf("%s, round %d: %w", who, i+1, err)
			}
			fmt.Fprintf(progress, "%-9s  round %d  %7.0f generations/s  p99 %6.1f ms\n", who, i+1, one.PerSecond, one.P99)
			r.Rounds = append(r.Rounds, one)
			if who == nameFloor {
				floors = append(floors, one)
			} else {
				products = append(products, one)
			}
		}
	}
	r.Floor, r.Genstream = median(floors), median(products)
	return r, r.raw(ctx, dir)
}

// raw measures what the product rests on.
func (r *benchReport) raw(ctx context.Context, dir string) (err error) {
	long := min(2*time.Second, time.Duration(r.Seconds*float64(time.Second)))
	if r.AppendsSynced, err = raw.Appends(ctx, filepath.Join(dir, "synced"), r.Clients, true, long); err != nil {
		return err
	}
	if r.AppendsUnsynced, err = raw.Appends(ctx, filepath.Join(dir, "unsynced"), r.Clients, false, long); err != nil {
		return err
	}
	if r.Inserts, err = raw.Inserts(ctx, filepath.Join(dir, "rows"), r.Outputs, long); err != nil {
		return err
	}
	commits := r.Genstream.PerSecond * r.Genstream.Commits
	r.OfFloor = r.Genstream.PerSecond / r.Floor.PerSecond
	r.OfAppendsSynced, r.OfAppendsUnsynced = commits/r.AppendsSynced, commits/r.AppendsUnsynced
	r.OfInserts = r.Genstream.PerSecond / r.Inserts
	return nil
}

// median is the round whose throughput is the middle one.
func median(rounds []benchRound) benchRound {
	sorted := slices.SortedFunc(slices.Values(rounds), func(a, b benchRound) int {
		switch {
		case a.PerSecond < b.PerSecond:
			return -1
		case a.PerSecond > b.PerSecond:
			return 1
		}
		return 0
	})
	if len(sorted) == 0 {
		return benchRound{}
	}
	return sorted[len(sorted)/2]
}

// profiling writes a CPU profile until its end is called; an empty path is none.
func profiling(path string) (end func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func (r benchReport) print(w io.Writer) {
	how := "inline"
	if !r.Inline {
		how = "by URL"
	}
	fmt.Fprintf(w, "\n%d clients, %d output(s) of 8 KiB %s, closed loop, %.0f s a round, medians of %d rounds\n\n",
		r.Clients, r.Outputs, how, r.Seconds, len(r.Rounds)/2)
	fmt.Fprintf(w, "  %-34s %12s %12s\n", "", nameProduct, nameFloor)
	line := func(name, format string, of func(benchRound) float64) {
		fmt.Fprintf(w, "  %-34s %12s %12s\n", name, fmt.Sprintf(format, of(r.Genstream)), fmt.Sprintf(format, of(r.Floor)))
	}
	line("generations/s", "%.0f", func(b benchRound) float64 { return b.PerSecond })
	line("p50, ms", "%.1f", func(b benchRound) float64 { return b.P50 })
	line("p99, ms", "%.1f", func(b benchRound) float64 { return b.P99 })
	line("CPU/generation, ms", "%.2f", func(b benchRound) float64 { return b.CPU })
	line("  and of driver and provider, ms", "%.2f", func(b benchRound) float64 { return b.DriverCPU })
	line("memory idle, MB", "%.0f", func(b benchRound) float64 { return b.Idle })
	line("memory at most, MB", "%.0f", func(b benchRound) float64 { return b.Peak })
	line("appends/generation", "%.1f", func(b benchRound) float64 { return b.Commits })
	line("shared syncs a second", "%.0f", func(b benchRound) float64 { return b.Syncs })
	line("log, bytes/generation", "%.0f", func(b benchRound) float64 { return b.LogBytes })
	line("catalog, bytes/generation", "%.0f", func(b benchRound) float64 { return b.CatalogBytes })
	line("bucket, bytes/generation", "%.0f", func(b benchRound) float64 { return b.BucketBytes })
	fmt.Fprintf(w, "\n  %s reaches\n", nameProduct)
	of := func(ratio float64, what, format string, args ...any) {
		fmt.Fprintf(w, "  %5.0f %%  of %s, %s\n", 100*ratio, what, fmt.Sprintf(format, args...))
	}
	of(r.OfFloor, "the bare program", "%.0f generations/s", r.Floor.PerSecond)
	of(r.OfAppendsSynced, "JetStream alone, each append synced", "%.0f appends/s", r.AppendsSynced)
	of(r.OfAppendsUnsynced, "JetStream alone, nothing synced", "%.0f appends/s", r.AppendsUnsynced)
	of(r.OfInserts, "SQLite alone", "%.0f generations/s", r.Inserts)
}
