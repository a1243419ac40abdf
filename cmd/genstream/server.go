package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func upCommand() *cobra.Command { return upCommandWith(wires{}) }

func upCommandWith(w wires) *cobra.Command {
	var cfg config
	c := &cobra.Command{
		Use:     "up",
		GroupID: "server",
		Short:   "run everything in this process, and keep the data",
		Long: `up runs all roles in one process on one data directory, with NATS, the bucket and the
catalog in it. Without a provider it uses the simulated one.

Every flag can be given as an environment variable (--webhook-url as GENSTREAM_WEBHOOK_URL)
or in the file that --config names. Flags come before the environment, that before the file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			if _, err := parseFsync(cfg.Fsync); err != nil {
				return err
			}
			cfg.Roles = []string{roleOrchestrator, roleIngress, roleAPI}
			return serve(cmd.Context(), cfg, w, cmd.ErrOrStderr(), cmd.OutOrStdout())
		},
	}
	serverFlags(c.Flags(), &cfg)
	c.Flags().StringVar(&cfg.Fsync, "fsync", fsyncGate, "how appends reach the disk before anything rests on them: gate (many share a sync) or always (each has its own); or a time like 100ms: nothing waits for the disk, and a power cut takes what was acknowledged in so long before it")
	c.Flags().StringVar(&cfg.NATSListen, "nats-listen", "", "address for NATS clients, with users admin and requester (their passwords are in --data)")
	return c
}

func serveCommand() *cobra.Command { return serveCommandWith(new(config)) }

func serveCommandWith(cfg *config) *cobra.Command {
	c := &cobra.Command{
		Use:     "serve",
		GroupID: "server",
		Short:   "run some roles on an existing NATS cluster",
		Long: `serve runs the roles that --roles names on a NATS server or cluster that is there already.
Start as many processes of each role as you like. The cluster must sync before it acknowledges
(sync_interval: always), or acknowledged requests can be lost in a power cut.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			if cfg.NATSURL == "" {
				return errors.New("serve needs --nats-url; for a server with NATS inside use `genstream up`")
			}
			for _, r := range cfg.Roles {
				if r != roleOrchestrator && r != roleIngress && r != roleAPI {
					return fmt.Errorf("role %q is none of %s, %s, %s", r, roleOrchestrator, roleIngress, roleAPI)
				}
			}
			list, err := cfg.providers()
			if err != nil {
				return err
			}
			if calls := slices.Contains(cfg.Roles, roleOrchestrator) || slices.Contains(cfg.Roles, roleIngress); calls && len(list) == 0 {
				return errors.New("serve needs a provider: GENSTREAM_RUNWARE_KEY, --runware-key-file, or \"providers\" in the file of --config")
			}
			return serve(cmd.Context(), *cfg, wires{}, cmd.ErrOrStderr(), cmd.OutOrStdout())
		},
	}
	serverFlags(c.Flags(), cfg)
	f := c.Flags()
	natsFlags(f, cfg)
	f.IntVar(&cfg.Replicas, "replicas", 1, "replicas of the streams, if they have to be created; 3 on a cluster")
	f.StringSliceVar(&cfg.Roles, "roles", []string{roleOrchestrator, roleIngress, roleAPI}, "roles of this process")
	return c
}

// natsFlags declares how somebody else's NATS is reached.
func natsFlags(f *pflag.FlagSet, cfg *config) {
	f.StringVar(&cfg.NATSURL, "nats-url", "", "URL of the NATS server, or of a cluster's servers with commas between them; "+envName("nats-url")+" keeps a password out of the process list")
	f.StringVar(&cfg.NATSCreds, "nats-creds", "", "file of NATS credentials")
}

// serve runs a node until ctx ends, and tells where it is.
func serve(ctx context.Context, cfg config, w wires, logs, out io.Writer) error {
	n, err := openNode(ctx, cfg, w, newLogger(logs, cfg.Verbose))
	if err != nil {
		return err
	}
	defer n.close()
	pacing, stop := context.WithCancel(ctx)
	defer stop()
	go spaceGarbage(pacing)
	return n.run(ctx, func() { n.tell(out) })
}

// tell prints where everything is.
func (n *node) tell(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-10s "+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintf(w, "genstream %s   %s\n\n", version, strings.Join(n.cfg.Roles, ", "))
	if n.api != nil {
		line("Gallery", "http://%s", n.api.Addr())
		line("API", "http://%s/v1   (OpenAPI 3.1 at /openapi.json)", n.api.Addr())
	}
	switch {
	case n.server != nil && n.server.URL() != "":
		line("NATS", "%s   users admin and requester, passwords in the data directory", n.server.URL())
	case n.server != nil:
		line("NATS", "embedded, JetStream on disk, no listener")
	default:
		line("NATS", "%s", redactURL(n.cfg.NATSURL))
	}
	line("Data", "%s", n.cfg.Data)
	for _, p := range n.providers {
		line("Provider", "%s", p.Name)
	}
	if n.simulated {
		line("", "simulated: nothing leaves this machine, nothing is billed")
	}
	switch {
	case n.cfg.WebhookURL != "" && n.hooks != nil:
		line("Webhooks", "%s, served on %s", n.cfg.WebhookURL, n.hooks.Addr())
	case n.hooksBase == "" && n.orchestrator != nil:
		line("Webhooks", "none: without --webhook-url, results are asked for")
	}
	fmt.Fprintln(w)
}

func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
