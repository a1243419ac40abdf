package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

// stored is a data directory that no server works on, opened for reading.
type stored struct {
	cfg    config
	unlock func()
	server *natsd.Server
	log    *stream.Log
	bucket *blob.Bucket
}

// openStored opens what a server left. The directory must hold a log.
func openStored(ctx context.Context, cfg config) (s *stored, err error) {
	if _, err := os.Stat(filepath.Join(cfg.Data, natsDir)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no genstream data: name the directory with --data", cfg.Data)
	}
	s = &stored{cfg: cfg}
	opened := s
	defer func() {
		if err != nil {
			opened.close() // s is nil by then
		}
	}()
	if s.unlock, err = natsd.Lock(cfg.Data); err != nil {
		return nil, err
	}
	if s.server, err = natsd.Start(natsd.Config{Dir: filepath.Join(cfg.Data, natsDir)}); err != nil {
		return nil, err
	}
	if s.log, err = stream.Open(ctx, s.server.Conn(), stream.Config{Own: true, SyncAll: s.server.SyncAll}); err != nil {
		return nil, err
	}
	s.bucket, err = blob.Open(ctx, cfg.Bucket)
	return s, err
}

func (s *stored) close() {
	if s.bucket != nil {
		s.bucket.Close()
	}
	if s.server != nil {
		s.server.Close()
	}
	if s.unlock != nil {
		s.unlock()
	}
}

func verifyCommand() *cobra.Command {
	var cfg config
	var asJSON bool
	var grace time.Duration
	c := &cobra.Command{
		Use:     "verify",
		GroupID: "server",
		Short:   "check the log, the catalog, the bucket and the simulated provider's journal against each other",
		Long: `verify reads everything that a stopped server has kept, and checks the invariants that
stored data can show. It changes nothing. Exit code 1 means that one is broken.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			r, err := verifyStored(cmd.Context(), cfg, grace)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				if err := e.Encode(r); err != nil {
					return err
				}
			} else {
				r.Print(cmd.OutOrStdout())
			}
			if r.Violations() > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	f := c.Flags()
	dataFlags(c, &cfg)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.DurationVar(&grace, "grace", 24*time.Hour, "orphan files younger than this may be work in progress")
	return c
}

// dataFlags declares the flags of verbs that work on a stopped server's data.
func dataFlags(c *cobra.Command, cfg *config) {
	c.Flags().StringVar(&cfg.Data, "data", "genstream-data", "directory of everything that is kept")
	c.Flags().StringVar(&cfg.Bucket, "bucket", "", "bucket URL (default: the directory in --data)")
}

func verifyStored(ctx context.Context, cfg config, grace time.Duration) (*verify.Report, error) {
	s, err := openStored(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.close()
	src := verify.Source{Log: s.log, Bucket: s.bucket, Grace: grace}
	src.Catalog, err = projector.OpenCurrent(ctx, filepath.Join(cfg.Data, catalogDir))
	if err == nil {
		defer src.Catalog.Close()
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, catalog.ErrSchema) {
		return nil, err
	}
	if src.Journal, err = readJournal(cfg.Data); err != nil {
		return nil, err
	}
	return verify.Run(ctx, src)
}

// readJournal reads the simulated provider's journal, nil if there is none.
func readJournal(data string) ([]sim.Entry, error) {
	f, err := os.Open(filepath.Join(data, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	entries, err := sim.ReadJournal(f)
	if entries == nil {
		entries = []sim.Entry{}
	}
	return entries, err
}

func rebuildCommand() *cobra.Command {
	var cfg config
	c := &cobra.Command{
		Use:     "rebuild",
		GroupID: "server",
		Short:   "build the catalog again from the log",
		Long: `rebuild builds a new catalog from the log of a stopped server, and has it serve from then
on. The old one stays until the new one is complete.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			s, err := openStored(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer s.close()
			p, err := projector.New(cmd.Context(), projector.Config{
				Log: s.log, Dir: filepath.Join(cfg.Data, catalogDir), Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				return err
			}
			defer p.Close()
			started := time.Now()
			err = p.Rebuild(cmd.Context(), func(done, total uint64) {
				fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d commits", done, total)
			})
			fmt.Fprintln(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			n, err := p.Current().Counts(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d generations, %d artifacts, in %s\n", n.Generations, n.Artifacts, time.Since(started).Round(time.Millisecond))
			return nil
		},
	}
	dataFlags(c, &cfg)
	return c
}
