package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/genstream/genstream/events"
)

// errDone ends the following of a generation that is completed.
var errDone = errors.New("completed")

func runCommand() *cobra.Command {
	var o struct {
		count    int
		out      string
		deadline string
		provider string
		labels   []string
		timeout  time.Duration
		quiet    bool
		noWait   bool
	}
	c := &cobra.Command{
		Use:   "run MODEL key=value…",
		Short: "make a generation, watch it, and save its files",
		Long: `run asks for a generation, shows its events as they happen, and saves its files.
Values that are JSON are sent as such (width=1024, extra='{"a":1}'), others as text.
A value of @path is a file, which is uploaded first (seedImage=@photo.png).

Paths of saved files go to standard output, progress to standard error.
Exit codes: 0 all outputs, 3 some, 4 none, 5 not completed within --timeout, 1 an error.`,
		Example: `  genstream run runware:101@1 positivePrompt="a paper boat" -n 4`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := newClient(cmd)
			if err != nil {
				return err
			}
			if args, err = cl.uploads(cmd.Context(), args); err != nil {
				return err
			}
			body, err := requestBody(args, o.count, o.deadline, o.provider, o.labels)
			if err != nil {
				return err
			}
			progress := cmd.ErrOrStderr()
			if o.quiet {
				progress = io.Discard
			}
			return cl.run(cmd.Context(), body, o.timeout, o.noWait, o.out, progress, cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.IntVarP(&o.count, "count", "n", 1, "outputs wanted, 1 to 20")
	f.StringVarP(&o.out, "out", "o", "outputs", "directory for the files; empty: none are saved")
	f.StringVar(&o.deadline, "deadline", "", "how long it may take, such as 90s or 10m")
	f.StringVar(&o.provider, "provider", "", "name of a configured provider")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "key=value, up to 8")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 = until it is completed")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	f.BoolVar(&o.noWait, "no-wait", false, "print the ID and leave")
	clientFlags(c)
	return c
}

func requestBody(args []string, count int, deadline, provider string, labels []string) ([]byte, error) {
	input := map[string]json.RawMessage{}
	for _, arg := range args[1:] {
		key, value, err := keyValue(arg)
		if err != nil {
			return nil, err
		}
		input[key] = value
	}
	req := map[string]any{"model": args[0], "input": input, "count": count}
	if deadline != "" {
		req["deadline"] = deadline
	}
	if provider != "" {
		req["provider"] = provider
	}
	if len(labels) > 0 {
		m := map[string]string{}
		for _, l := range labels {
			key, value, ok := strings.Cut(l, "=")
			if !ok {
				return nil, fmt.Errorf("label %q is not key=value", l)
			}
			m[key] = value
		}
		req["labels"] = m
	}
	return json.Marshal(req)
}

// run creates under an ID of its own, so that it can be asked for again after a
// lost answer without making a second generation.
func (c *client) run(ctx context.Context, body []byte, timeout time.Duration, noWait bool, dir string, progress, out io.Writer) error {
	v7, err := uuid.NewV7()
	if err != nil {
		return err
	}
	id := v7.String()
	if err := c.create(ctx, id, body); err != nil {
		return err
	}
	if noWait {
		fmt.Fprintln(out, id)
		return nil
	}
	return c.watch(ctx, id, timeout, dir, progress, out)
}

// watch shows the events of a generation as they happen, and saves its files.
func (c *client) watch(ctx context.Context, id string, timeout time.Duration, dir string, progress, out io.Writer) error {
	fmt.Fprintf(progress, "generation %s\n", id)
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var start time.Time
	err := c.follow(wait, "/v1/generations/"+id+"/events", func(e logged) error {
		if start.IsZero() {
			start = e.At
		}
		for _, line := range describe(e.raw) {
			fmt.Fprintf(progress, "  + %5.2f s  %s\n", e.At.Sub(start).Seconds(), line)
		}
		if e.Type == "completed" {
			return errDone
		}
		return nil
	})
	switch {
	case errors.Is(err, errDone):
	case timeout > 0 && wait.Err() != nil && ctx.Err() == nil:
		fmt.Fprintf(progress, "not completed after %s; it goes on: genstream show %s\n", timeout, id)
		return exitTimeout
	default:
		return err
	}
	var g events.View
	if err := c.get(ctx, "/v1/generations/"+id, &g); err != nil {
		return err
	}
	return c.finish(ctx, g, dir, progress, out)
}

// create asks until somebody answers: the ID makes that safe.
func (c *client) create(ctx context.Context, id string, body []byte) error {
	return patiently(ctx, func() error {
		res, err := c.do(ctx, "PUT", "/v1/generations/"+id, body)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
}

// finish saves the files and turns what came of it into the exit code.
func (c *client) finish(ctx context.Context, g events.View, dir string, progress, out io.Writer) error {
	good := 0
	for _, o := range g.Outputs {
		if o.Artifact == nil {
			continue
		}
		good++
		if dir == "" {
			fmt.Fprintln(out, o.Artifact.ID)
			continue
		}
		path, err := c.save(ctx, *o.Artifact, dir)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, path)
	}
	fmt.Fprintf(progress, "%d of %d outputs", good, g.ExpectedCount)
	if g.Error != nil {
		fmt.Fprintf(progress, ": %s: %s", g.Error.Code, g.Error.Message)
	}
	fmt.Fprintln(progress)
	switch good {
	case g.ExpectedCount:
		return nil
	case 0:
		return exitNone
	}
	return exitSome
}

// save downloads an artifact into dir. The name is ours: nothing of it comes
// from the provider.
func (c *client) save(ctx context.Context, a events.ArtifactView, dir string) (string, error) {
	if _, _, err := events.ParseArtifactID(a.ID); err != nil {
		return "", fmt.Errorf("save artifact: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ext := filepath.Ext(a.BlobKey)
	if known, _ := mime.ExtensionsByType(a.ContentType); ext == "" && len(known) > 0 {
		ext = known[0]
	}
	res, err := c.do(ctx, "GET", "/v1/artifacts/"+a.ID+"/content", nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	path := filepath.Join(dir, a.ID+ext)
	f, err := os.CreateTemp(dir, ".genstream-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // nothing is left there after the rename
	n, err := io.Copy(f, res.Body)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("save %s: %w", path, err)
	}
	if n != a.Size {
		return "", fmt.Errorf("save %s: %d bytes came of %d", path, n, a.Size)
	}
	return path, os.Rename(f.Name(), path)
}
