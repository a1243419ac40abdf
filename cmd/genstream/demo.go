package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// scene is one generation of the demo. Words in double brackets tell the
// simulated provider how to misbehave.
type scene struct {
	model, prompt string
	count         int
}

var scenes = []scene{
	{"sim:fox@1", "a red fox in neon rain [[double:2]]", 4},
	{"sim:castle@1", "a castle made of glass [[fail:2]] [[lose:3]]", 3},
	{"sim:unknown@1", "this model does not exist", 1},
}

func demoCommand() *cobra.Command {
	var cfg config
	var exit, asJSON bool
	var seed uint64
	c := &cobra.Command{
		Use:     "demo",
		GroupID: "server",
		Short:   "run three generations against a simulated provider, check the result, then serve it",
		Long: `demo runs everything in this process: three generations that show success, a partial
failure with a lost webhook that is found by asking, and a refused request. Then it checks what
was stored, and goes on serving it. Nothing leaves this machine.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			cfg.Providers, cfg.RunwareKey, cfg.WebhookURL = nil, "", "" // whatever is configured: a demo buys nothing
			cfg.Roles = []string{roleOrchestrator, roleIngress, roleAPI}
			cfg.PollAfter = 1500 * time.Millisecond
			if seed == 0 {
				seed = rand.Uint64N(1e6) + 1
			}
			cfg.Sim = sim.Config{Seed: seed, Latency: sim.Range{Min: 200 * time.Millisecond, Max: 900 * time.Millisecond}}
			n, err := openNode(cmd.Context(), cfg, wires{}, newLogger(cmd.ErrOrStderr(), cfg.Verbose))
			if err != nil {
				return err
			}
			defer n.close()
			out := cmd.OutOrStdout()
			d := demo{node: n, out: out, client: &client{base: "http://" + n.api.Addr().String(), http: &http.Client{}}}
			if asJSON {
				d.out = io.Discard
			}
			return d.run(cmd.Context(), exit, func(r demoResult) error {
				if !asJSON {
					return nil
				}
				e := json.NewEncoder(out)
				e.SetIndent("", "  ")
				return e.Encode(r)
			})
		},
	}
	f := c.Flags()
	serverFlags(f, &cfg)
	f.BoolVar(&exit, "exit", false, "stop after the checks instead of serving")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON and nothing else")
	f.Uint64Var(&seed, "seed", 0, "of the simulated provider's chances; 0 = another one each time")
	return c
}

// demoResult is what the demo made and found, all of it computed.
type demoResult struct {
	Data        string         `json:"data"`
	Simulated   bool           `json:"simulated"`
	Generations []events.View  `json:"generations"`
	Totals      demoTotals     `json:"totals"`
	Checks      *verify.Report `json:"checks"`
}

// demoTotals counts everything in the data directory, not only this run's part.
type demoTotals struct {
	Commits     uint64      `json:"commits"`
	Events      int         `json:"events"`
	Generations int         `json:"generations"`
	Artifacts   int         `json:"artifacts"`
	Files       int         `json:"files"`
	Cost        json.Number `json:"cost"`
}

type demo struct {
	node   *node
	client *client
	out    io.Writer
}

// run serves, plays the scenes, checks, and goes on serving unless it is to exit.
func (d demo) run(ctx context.Context, exit bool, result func(demoResult) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	err := d.node.run(ctx, func() {
		failed = d.play(ctx, exit, result)
		if exit || failed != nil {
			stop()
		}
	})
	return errors.Join(failed, err)
}

func (d demo) play(ctx context.Context, exit bool, result func(demoResult) error) error {
	fmt.Fprintf(d.out, "genstream %s   demo: the provider is simulated, nothing leaves this machine\n\n", version)
	fmt.Fprintf(d.out, "  Gallery    http://%s\n", d.node.api.Addr())
	fmt.Fprintf(d.out, "  API        http://%s/v1   (OpenAPI 3.1 at /openapi.json)\n", d.node.api.Addr())
	fmt.Fprintf(d.out, "  NATS       embedded, JetStream on disk\n")
	fmt.Fprintf(d.out, "  Data       %s   delete it to start over\n\n", d.node.cfg.Data)
	r := demoResult{Data: d.node.cfg.Data, Simulated: d.node.simulated}
	for i, s := range scenes {
		g, err := d.scene(ctx, i, s)
		if err != nil {
			return err
		}
		r.Generations = append(r.Generations, g)
	}
	if err := d.check(ctx, &r); err != nil {
		return err
	}
	d.tellChecks(r)
	if err := result(r); err != nil {
		return err
	}
	if r.Checks.Violations() > 0 {
		return exitCode(1)
	}
	if !exit {
		base := d.client.base
		fmt.Fprintf(d.out, "  Open %s or, in another terminal:\n", base)
		api := ""
		if base != "http://127.0.0.1:8080" {
			api = " --api " + base
		}
		fmt.Fprintf(d.out, "    genstream run sim:boat@1 positivePrompt=\"a paper boat\" -n 4%s\n", api)
		fmt.Fprintf(d.out, "    genstream events --follow%s\n", api)
		fmt.Fprintf(d.out, "  Ctrl-C stops it; run it again and everything is still here.\n")
	}
	return nil
}

var directive = regexp.MustCompile(`\s*\[\[[^\]]*\]\]`)

// scene makes one generation through the API, and tells its events as they come.
func (d demo) scene(ctx context.Context, i int, s scene) (g events.View, err error) {
	wanted := "outputs"
	if s.count == 1 {
		wanted = "output"
	}
	fmt.Fprintf(d.out, "  %d/%d  %q   %d %s wanted\n", i+1, len(scenes), directive.ReplaceAllString(s.prompt, ""), s.count, wanted)
	body, err := json.Marshal(map[string]any{
		"model": s.model, "count": s.count, "input": map[string]any{"positivePrompt": s.prompt, "width": 768, "height": 768},
		"labels": map[string]string{"from": "demo"},
	})
	if err != nil {
		return g, err
	}
	id := uuid.Must(uuid.NewV7()).String()
	if err := d.client.create(ctx, id, body); err != nil {
		return g, err
	}
	story := story{out: d.out}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := d.client.follow(ctx, "/v1/generations/"+id+"/events", story.tell); !errors.Is(err, errDone) {
		return g, fmt.Errorf("follow generation=%s: %w", id, err)
	}
	return g, d.client.get(ctx, "/v1/generations/"+id, &g)
}

// check has everything verified, from the log that is being served.
func (d demo) check(ctx context.Context, r *demoResult) error {
	n := d.node
	end, err := n.stream.Refresh(ctx)
	if err != nil {
		return err
	}
	if err := n.projector.Wait(ctx, end); err != nil {
		return err
	}
	journal, err := readJournal(n.cfg.Data)
	if err != nil {
		return err
	}
	r.Checks, err = verify.Run(ctx, verify.Source{
		Log: n.stream, Bucket: n.bucket, Catalog: n.projector.Current(), Journal: journal, Grace: time.Hour,
	})
	if err != nil {
		return err
	}
	counts, err := n.projector.Current().Counts(ctx)
	if err != nil {
		return err
	}
	r.Totals = demoTotals{
		Generations: int(counts.Generations), Artifacts: int(counts.Artifacts), Cost: events.Dollars(counts.Cost),
	}
	for _, err := range n.bucket.List(ctx, "") {
		if err != nil {
			return err
		}
		r.Totals.Files++
	}
	return n.stream.Scan(ctx, 0, end, func(batch []stream.Entry) error {
		for _, e := range batch {
			r.Totals.Commits++
			r.Totals.Events += strings.Count(e.Types, ",") + 1
		}
		return nil
	})
}

func (d demo) tellChecks(r demoResult) {
	t := r.Totals
	fmt.Fprintf(d.out, "\n  Checks     %d events in %d commits, %d generations, %d artifacts, %d files, $%s\n",
		t.Events, t.Commits, t.Generations, t.Artifacts, t.Files, t.Cost)
	r.Checks.Print(d.out)
	fmt.Fprintln(d.out)
}

// story tells the events of one scene as they come.
type story struct {
	out   io.Writer
	start time.Time
}

func (s *story) tell(e logged) error {
	if s.start.IsZero() {
		s.start = e.At
	}
	for _, line := range describe(e.raw) {
		fmt.Fprintf(s.out, "       + %4.2f s  %s\n", e.At.Sub(s.start).Seconds(), line)
	}
	if e.Type == "completed" {
		return errDone
	}
	return nil
}
