package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/events"
)

func rescueCommand() *cobra.Command {
	var o struct {
		out     string
		timeout time.Duration
		quiet   bool
	}
	c := &cobra.Command{
		Use:   "rescue ID",
		Short: "fetch what a generation missed, without buying anything",
		Long: `rescue makes a new generation of the outputs that a completed one got no files of, because
its deadline passed, say. The provider is asked once for the same tasks, and what is there
by now is fetched and saved. Asked again, it is the same new generation.

Exit codes are those of run.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := events.ParseID(args[0])
			if err != nil {
				return err
			}
			cl, err := newClient(cmd)
			if err != nil {
				return err
			}
			progress := cmd.ErrOrStderr()
			if o.quiet {
				progress = io.Discard
			}
			rescue, err := cl.rescue(cmd.Context(), id)
			if err != nil {
				return err
			}
			return cl.watch(cmd.Context(), string(rescue), o.timeout, o.out, progress, cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVarP(&o.out, "out", "o", "outputs", "directory for the files; empty: none are saved")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 = until it is completed")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	clientFlags(c)
	return c
}

// rescue asks until somebody answers: the same rescue again is the same generation.
func (c *client) rescue(ctx context.Context, id events.ID) (rescue events.ID, err error) {
	err = patiently(ctx, func() error {
		res, err := c.do(ctx, http.MethodPost, "/v1/generations/"+string(id)+"/rescue", nil)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var made struct {
			ID events.ID `json:"id"`
		}
		if err := json.NewDecoder(res.Body).Decode(&made); err != nil {
			return fmt.Errorf("read answer to rescue: %w", err)
		}
		rescue = made.ID
		return nil
	})
	return rescue, err
}

// uploads replaces each key=@path of args by the file's name, once it is uploaded.
func (c *client) uploads(ctx context.Context, args []string) ([]string, error) {
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = arg
		key, path, ok := strings.Cut(arg, "=@")
		if !ok || strings.Contains(key, "=") || key == "" {
			continue
		}
		file, err := c.upload(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("upload %s: %w", path, err)
		}
		out[i] = key + `={"$file":"` + file + `"}`
	}
	return out, nil
}

// upload keeps a file for inputs, and returns what an input names it by.
func (c *client) upload(ctx context.Context, path string) (file string, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	err = patiently(ctx, func() error {
		res, err := c.do(ctx, http.MethodPost, "/v1/files", content, "Content-Type", "application/octet-stream")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var kept struct {
			File string `json:"file"`
		}
		err = json.NewDecoder(res.Body).Decode(&kept)
		if _, ok := events.ParseInputKey(kept.File); err != nil || !ok {
			return errors.New("the answer names no file")
		}
		file = kept.File
		return nil
	})
	return file, err
}

// patiently asks again while the server has no time, a few times.
func patiently(ctx context.Context, ask func() error) error {
	for try := 0; ; try++ {
		err := ask()
		var p *problemError
		if !errors.As(err, &p) || p.code != http.StatusServiceUnavailable || try == 5 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
