package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/events"
)

// listed is one row of GET /v1/generations.
type listed struct {
	ID            string          `json:"id"`
	Model         string          `json:"model"`
	Input         json.RawMessage `json:"input"`
	ArtifactCount int             `json:"artifact_count"`
	CreatedAt     time.Time       `json:"created_at"`
	CompletedAt   time.Time       `json:"completed_at"`
}

func lsCommand() *cobra.Command {
	var o struct {
		model, label, format string
		failed               bool
		since                time.Duration
		limit                int
	}
	c := &cobra.Command{
		Use:   "ls",
		Short: "list completed generations, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := newClient(cmd)
			if err != nil {
				return err
			}
			q := url.Values{}
			if o.model != "" {
				q.Set("model", o.model)
			}
			if o.label != "" {
				q.Set("label", strings.Replace(o.label, "=", ":", 1))
			}
			if o.failed {
				q.Set("failed", "true")
			}
			if o.since > 0 {
				q.Set("from", time.Now().Add(-o.since).UTC().Format(time.RFC3339))
			}
			rows := []json.RawMessage{}
			for len(rows) < o.limit {
				q.Set("limit", strconv.Itoa(min(o.limit-len(rows), 200)))
				var page struct {
					Generations []json.RawMessage `json:"generations"`
					Next        string            `json:"next"`
				}
				if err := cl.get(cmd.Context(), "/v1/generations?"+q.Encode(), &page); err != nil {
					return err
				}
				rows = append(rows, page.Generations...)
				if page.Next == "" {
					break
				}
				q.Set("cursor", page.Next)
			}
			return printRows(cmd.OutOrStdout(), rows, o.format)
		},
	}
	f := c.Flags()
	f.StringVar(&o.model, "model", "", "of this model only")
	f.StringVarP(&o.label, "label", "l", "", "key=value: with this label only")
	f.BoolVar(&o.failed, "failed", false, "without artifacts only")
	f.DurationVar(&o.since, "since", 0, "not older than, such as 2h")
	f.IntVarP(&o.limit, "limit", "n", 20, "at most")
	f.StringVarP(&o.format, "output", "o", "table", "table, json, jsonl or id")
	clientFlags(c)
	return c
}

func printRows(w io.Writer, rows []json.RawMessage, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	case "jsonl":
		for _, r := range rows {
			fmt.Fprintf(w, "%s\n", r)
		}
		return nil
	case "table", "id":
	default:
		return fmt.Errorf("output %q is none of table, json, jsonl, id", format)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if format == "table" {
		fmt.Fprintln(t, "ID\tCREATED\tTOOK\tARTIFACTS\tMODEL\tINPUT")
	}
	for _, raw := range rows {
		var r listed
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		if format == "id" {
			fmt.Fprintln(t, r.ID)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", r.ID, r.CreatedAt.Local().Format("01-02 15:04:05"),
			r.CompletedAt.Sub(r.CreatedAt).Round(10*time.Millisecond), r.ArtifactCount, r.Model, prompt(r.Input, 48))
	}
	return t.Flush()
}

// prompt is what a person would call the generation: its prompt, or its input.
func prompt(input json.RawMessage, width int) string {
	var in struct {
		Prompt string `json:"positivePrompt"`
	}
	text := string(input)
	if json.Unmarshal(input, &in) == nil && in.Prompt != "" {
		text = in.Prompt
	}
	text = strings.Map(func(r rune) rune { // a prompt is somebody's text: no control characters reach the terminal
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}

func showCommand() *cobra.Command {
	var raw bool
	c := &cobra.Command{
		Use:   "show ID",
		Short: "show one generation, completed or not",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := events.ParseID(args[0])
			if err != nil {
				return err
			}
			cl, err := newClient(cmd)
			if err != nil {
				return err
			}
			var body json.RawMessage
			if err := cl.get(cmd.Context(), "/v1/generations/"+string(id), &body); err != nil {
				return err
			}
			if raw {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", body)
				return err
			}
			var g events.View
			if err := json.Unmarshal(body, &g); err != nil {
				return err
			}
			return printGeneration(cmd.OutOrStdout(), g)
		},
	}
	c.Flags().BoolVar(&raw, "json", false, "as the API gives it")
	clientFlags(c)
	return c
}

func printGeneration(w io.Writer, g events.View) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "generation\t%s\n", g.ID)
	fmt.Fprintf(t, "model\t%s at %s\n", g.Model, g.Provider)
	fmt.Fprintf(t, "input\t%s\n", prompt(g.Input, 100))
	if g.Rescues != "" {
		fmt.Fprintf(t, "rescues\t%s\n", g.Rescues)
	}
	fmt.Fprintf(t, "created\t%s\n", g.CreatedAt.Local().Format(time.DateTime))
	if g.CompletedAt.IsZero() {
		fmt.Fprintf(t, "completed\tnot yet\n")
	} else {
		fmt.Fprintf(t, "completed\tafter %s\n", g.CompletedAt.Sub(g.CreatedAt).Round(time.Millisecond))
	}
	if g.Error != nil {
		fmt.Fprintf(t, "error\t%s: %s\n", g.Error.Code, g.Error.Message)
	}
	for _, o := range g.Outputs {
		switch {
		case o.Artifact != nil:
			fmt.Fprintf(t, "output %d\t%s  %d bytes  seed %s  %s  %s\n", o.Slot, o.Artifact.ContentType,
				o.Artifact.Size, o.Artifact.Seed, dollars(o.Artifact.Cost), o.Artifact.BlobKey)
		case o.Error != nil:
			fmt.Fprintf(t, "output %d\tfailed: %s: %s\n", o.Slot, o.Error.Code, o.Error.Message)
		default:
			fmt.Fprintf(t, "output %d\tnot yet\n", o.Slot)
		}
	}
	return t.Flush()
}

func eventsCommand() *cobra.Command {
	var follow, raw bool
	c := &cobra.Command{
		Use:   "events [ID]",
		Short: "show what happened to a generation, or to all with --follow",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := newClient(cmd)
			if err != nil {
				return err
			}
			path := "/v1/events"
			if len(args) == 1 {
				id, err := events.ParseID(args[0])
				if err != nil {
					return err
				}
				path = "/v1/generations/" + string(id) + "/events"
			} else if !follow {
				return errors.New("name a generation, or use --follow to see all as they happen")
			}
			one := len(args) == 1
			print := func(e logged) error {
				if raw {
					fmt.Fprintf(cmd.OutOrStdout(), "%s\n", e.raw)
				} else {
					for _, line := range describe(e.raw) {
						if !one {
							line = e.ID + "  " + line
						}
						fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", e.At.Local().Format("15:04:05.000"), line)
					}
				}
				if one && e.Type == "completed" {
					return errDone
				}
				return nil
			}
			if follow {
				if err := cl.follow(cmd.Context(), path, print); !errors.Is(err, errDone) && cmd.Context().Err() == nil {
					return err
				}
				return nil
			}
			var all struct {
				Events []json.RawMessage `json:"events"`
			}
			if err := cl.get(cmd.Context(), path, &all); err != nil {
				return err
			}
			for _, r := range all.Events {
				e := logged{raw: r}
				if err := json.Unmarshal(r, &e); err != nil {
					return err
				}
				if err := print(e); err != nil && !errors.Is(err, errDone) {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more happens")
	c.Flags().BoolVar(&raw, "json", false, "one JSON object a line")
	clientFlags(c)
	return c
}
