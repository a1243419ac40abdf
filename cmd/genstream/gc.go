package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/cmd/genstream/verify"
)

func gcCommand() *cobra.Command {
	var cfg config
	var remove bool
	var grace time.Duration
	c := &cobra.Command{
		Use:     "gc",
		GroupID: "server",
		Short:   "find files that no commit names, and remove them with --delete",
		Long: `gc lists the files of a stopped server's bucket that no commit names and that are older
than the grace period: what a crash has left between a file and the commit that would have named
it. With --delete it removes them. It refuses to if the log is damaged: then a file may have no
name because its commit is missing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			if remove && grace < time.Hour {
				return fmt.Errorf("--grace %s is too short for --delete: at least 1h", grace)
			}
			r, err := verifyStored(cmd.Context(), cfg, grace)
			if err != nil {
				return err
			}
			return collect(cmd.Context(), cfg, r, remove, cmd.OutOrStdout())
		},
	}
	dataFlags(c, &cfg)
	c.Flags().BoolVar(&remove, "delete", false, "remove them")
	c.Flags().DurationVar(&grace, "grace", 24*time.Hour, "files younger than this may be work in progress; at least 1h with --delete")
	return c
}

// whole are the invariants without which a file may be an orphan only because the
// commit that names it is gone.
var whole = []string{"I3", "I4", "I6", "I20", "I21"}

// collect lists the orphans that a verification found, and removes them if it is to.
func collect(ctx context.Context, cfg config, r *verify.Report, remove bool, w io.Writer) error {
	for _, key := range r.Orphans {
		fmt.Fprintln(w, key)
	}
	if !remove {
		fmt.Fprintf(w, "%d files that no commit names; --delete removes them\n", len(r.Orphans))
		return nil
	}
	for _, i := range whole {
		if c := r.Claim(i); c.Count > 0 {
			return fmt.Errorf("nothing is removed: %s is broken (%s), so a commit that names a file may be missing; see `genstream verify`", i, c.Says)
		}
	}
	b, err := blob.Open(ctx, cfg.Bucket)
	if err != nil {
		return err
	}
	defer b.Close()
	for n, key := range r.Orphans {
		if err := b.Delete(ctx, key); err != nil {
			return fmt.Errorf("removed %d of %d: %w", n, len(r.Orphans), err)
		}
	}
	fmt.Fprintf(w, "%d files removed\n", len(r.Orphans))
	return nil
}
