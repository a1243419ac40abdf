package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/cmd/genstream/doctor"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

func doctorCommand() *cobra.Command {
	var cfg config
	var monitors []string
	var asJSON bool
	c := &cobra.Command{
		Use:     "doctor",
		GroupID: "server",
		Short:   "look at what genstream rests on: NATS, bucket, disk, clock, webhook address, keys",
		Long: `doctor takes the settings of up (or of serve, with --nats-url) and looks at everything that
they name: one line each, what was seen, and what to do about it. It changes and buys nothing,
and may run beside a server. Exit code 1 means that something is broken.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.resolve(cmd); err != nil {
				return err
			}
			r := diagnose(cmd.Context(), cfg, monitors)
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				if err := e.Encode(r); err != nil {
					return err
				}
			} else {
				r.Print(cmd.OutOrStdout())
			}
			if r.Broken() > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	f := c.Flags()
	serverFlags(f, &cfg)
	natsFlags(f, &cfg)
	f.StringSliceVar(&monitors, "nats-monitor", nil, "monitoring address of each NATS server, such as http://nats-1:8222: only there can be seen whether it syncs")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// diagnose looks at everything that cfg names.
func diagnose(ctx context.Context, cfg config, monitors []string) *doctor.Report {
	r := &doctor.Report{}
	there := true
	if cfg.NATSURL != "" {
		nc, err := connect(cfg)
		if err != nil {
			r.Add(doctor.Unreachable(redactURL(cfg.NATSURL), err))
		} else {
			r.Add(doctor.NATS(ctx, nc, false, false)...)
			nc.Close()
		}
		r.Add(doctor.Sync(ctx, monitors)...)
	} else {
		there = diagnoseOwn(ctx, cfg, r)
	}
	if there {
		b, err := blob.Open(ctx, cfg.Bucket)
		if err != nil { // it quotes the URL
			err = errors.New(strings.ReplaceAll(err.Error(), cfg.Bucket, bucketName(cfg.Bucket)))
		}
		r.Add(doctor.Bucket(ctx, bucketName(cfg.Bucket), b, err))
		if err == nil {
			b.Close()
		}
	}
	diagnoseDisk(cfg, r)
	diagnoseKeys(cfg, r)
	diagnoseProviders(ctx, cfg, r)
	return r
}

// diagnoseOwn looks at the embedded server's data, or at the process that has it
// open. It reports false if there is nothing yet.
func diagnoseOwn(ctx context.Context, cfg config, r *doctor.Report) (there bool) {
	dir := filepath.Join(cfg.Data, natsDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		r.Add(doctor.Finding{Check: "data", Level: doctor.Warning, Seen: cfg.Data + ": there is nothing yet", Do: "the first `genstream up` makes it"})
		return false
	}
	unlock, err := natsd.Lock(cfg.Data)
	if errors.Is(err, natsd.ErrLocked) {
		r.Add(running(ctx, cfg.Listen), doctor.Embedded())
		return true
	}
	if err != nil {
		r.Add(doctor.Finding{Check: "data", Level: doctor.Broken, Seen: err.Error(), Do: "may this user read and write there?"})
		return true
	}
	defer unlock()
	s, err := natsd.Start(natsd.Config{Dir: dir})
	if err != nil {
		r.Add(doctor.Finding{Check: "NATS", Level: doctor.Broken, Seen: err.Error(), Do: "stop, and restore the folder nats from a backup"})
		return true
	}
	defer s.Close()
	_, err = os.Stat(filepath.Join(cfg.Data, createdName))
	r.Add(doctor.NATS(ctx, s.Conn(), err == nil, true)...)
	r.Add(doctor.Embedded())
	return true
}

// running asks the process that has the data directory open how it is.
func running(ctx context.Context, listen string) doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	f := doctor.Finding{Check: "server", Level: doctor.Warning, Do: "name its API's address with --listen"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/readyz", nil)
	if err != nil {
		f.Seen = err.Error()
		return f
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.Seen = "a server has the data directory open, and does not answer at " + listen
		return f
	}
	defer res.Body.Close()
	var said struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}
	switch err := json.NewDecoder(res.Body).Decode(&said); {
	case err != nil:
		f.Seen = "what answers at " + listen + " is not genstream"
	case said.Ready:
		f.Level, f.Seen, f.Do = doctor.OK, "it runs, and is ready", ""
	default:
		f.Level, f.Seen, f.Do = doctor.Broken, "it runs, and is not ready: "+strings.Join(said.Reasons, "; "), "as it says; /readyz says it too"
	}
	return f
}

func diagnoseDisk(cfg config, r *doctor.Report) {
	dir := cfg.Data
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Dir(dir)
	}
	free, total, err := natsd.Free(dir)
	if err != nil {
		r.Add(doctor.Finding{Check: "disk", Level: doctor.Broken, Seen: err.Error(), Do: "name a directory that is there with --data"})
		return
	}
	r.Add(doctor.Disk(dir, free, total, createMark(total))...)
}

// diagnoseKeys looks at the files of secrets. It makes none.
func diagnoseKeys(cfg config, r *doctor.Report) {
	bad := func(err error) {
		r.Add(doctor.Finding{Check: "secrets", Level: doctor.Broken, Seen: err.Error(), Do: "mend the file; genstream does not start with it"})
	}
	if cfg.WebhookKeys != "" {
		if _, err := webhookKeys(cfg); err != nil {
			bad(err)
		}
	} else if cfg.NATSURL != "" {
		r.Add(doctor.Finding{
			Check: "secrets", Level: doctor.Warning, Seen: "each process makes webhook keys of its own, and knows no other's tokens",
			Do: "give all processes the same file with --webhook-keys",
		})
	}
	if _, err := (&node{cfg: cfg}).apiKeys(); err != nil {
		bad(fmt.Errorf("API keys: %w", err))
	}
	files := []string{cfg.WebhookKeys, cfg.APIKeys, cfg.KeyFile}
	for _, name := range []string{webhookKeysName, "nats-admin.password", "nats-requester.password"} {
		files = append(files, filepath.Join(cfg.Data, name))
	}
	for _, path := range files {
		if path != "" {
			r.Add(doctor.SecretFile(path)...)
		}
	}
}

func diagnoseProviders(ctx context.Context, cfg config, r *doctor.Report) {
	list, err := cfg.providers()
	if err != nil {
		r.Add(doctor.Finding{Check: "provider", Level: doctor.Broken, Seen: err.Error(), Do: "mend the settings; genstream does not start with them"})
		return
	}
	name := "sim"
	if len(list) > 0 {
		name = list[0].Name
	}
	switch {
	case cfg.WebhookURL != "":
		r.Add(doctor.Webhook(ctx, cfg.WebhookURL, name, signer(cfg, name))...)
	case len(list) > 0:
		r.Add(doctor.Finding{Check: "webhook", Level: doctor.OK, Seen: "no --webhook-url: results are asked for"})
	}
	if len(list) == 0 {
		r.Add(doctor.Finding{Check: "provider", Level: doctor.OK, Seen: "none is configured: `genstream up` simulates one, and nothing is billed"})
	}
	for _, p := range list {
		if p.URL == "" { // a simulated provider of the server's own
			r.Add(doctor.Finding{Check: "provider", Level: doctor.OK, Seen: p.Name + " is simulated"})
			continue
		}
		r.Add(doctor.Provider(ctx, p.Name, runware.New(runware.Config{Name: p.Name, BaseURL: p.URL, Key: p.Key, SpoolDir: os.TempDir()})))
	}
}

// signer makes webhook addresses with the keys of cfg, nil if they are not there:
// it makes none.
func signer(cfg config, name string) func(events.ID) string {
	if cfg.WebhookKeys == "" {
		if _, err := os.Stat(filepath.Join(cfg.Data, webhookKeysName)); err != nil {
			return nil
		}
	}
	keys, err := webhookKeys(cfg)
	if err != nil {
		return nil // told as a finding of its own
	}
	return func(id events.ID) string { return keys.URL(cfg.WebhookURL, name, id) }
}

// bucketName is a bucket's URL without its options, which may hold anything.
func bucketName(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the bucket"
	}
	u.RawQuery, u.User = "", nil
	return u.String()
}
