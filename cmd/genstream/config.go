package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// config is everything that a server can be told, by flags, by environment and
// by file, in this order of precedence.
type config struct {
	Data        string // directory of all that is kept
	Listen      string // of the API
	HooksListen string // of the webhook ingress
	OpsListen   string // of /metrics, /healthz and /readyz without a key; empty: the API alone has them
	WebhookURL  string // public base URL of the webhook ingress; empty: results are asked for
	WebhookKeys string // file of the secrets that webhook tokens are made with; empty: one in Data
	Bucket      string // URL; empty: a directory in Data
	Fsync       string // embedded only: gate (many appends share a sync) or always (each has its own)
	NATSListen  string // embedded only; empty: nobody else can connect
	NATSURL     string // serve only
	NATSCreds   string // serve only
	Replicas    int    // serve only, of streams that are created
	RunwareURL  string
	RunwareKey  string // environment or file only: a flag would show in the process list
	KeyFile     string // file that holds RunwareKey
	APIKeys     string // file of API keys
	Hosts       []string
	Roles       []string
	MaxOpen     int // generations; 0 = orchestrator.DefaultMaxOpen
	MaxCreates  int // at a time; 0 = orchestrator.DefaultMaxCreates
	Verbose     bool
	PollAfter   time.Duration // how long a webhook is waited for before the provider is asked; 0 = 15 s
	Sim         sim.Config    // of the simulated provider: its seed, latency and faults

	Providers []providerConfig // file only; the flags above make one named runware
}

// providerConfig is one configured provider in the file.
type providerConfig struct {
	Name       string  `json:"name"`
	Kind       string  `json:"kind"` // runware or sim
	URL        string  `json:"url"`
	Key        string  `json:"key"`
	KeyFile    string  `json:"key_file"`
	Concurrent int     `json:"concurrent"`
	PerSecond  float64 `json:"per_second"`
}

func (p providerConfig) limits() orchestrator.Limits {
	return orchestrator.Limits{Concurrent: p.Concurrent, PerSecond: p.PerSecond}
}

const envPrefix = "GENSTREAM_"

// envName is the environment variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// serverFlags declares the flags that up and serve share.
func serverFlags(f *pflag.FlagSet, c *config) {
	f.StringVar(&c.Data, "data", "genstream-data", "directory of everything that is kept")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8080", "address of the API; not loopback needs --api-keys")
	f.StringVar(&c.HooksListen, "hooks-listen", "127.0.0.1:8081", "address of the webhook ingress, which serves nothing else")
	f.StringVar(&c.OpsListen, "ops-listen", "", "address of /metrics, /healthz and /readyz, without a key; for processes without the API (default: the API has them)")
	f.StringVar(&c.WebhookURL, "webhook-url", "", "public base URL of the webhook ingress; without one, results are asked for")
	f.StringVar(&c.WebhookKeys, "webhook-keys", "", "file of webhook secrets, a line of hex each, the first signs; all processes need the same (default: one is made in --data)")
	f.StringVar(&c.Bucket, "bucket", "", "bucket URL: file:///dir, s3://name?region=… (default: a directory in --data)")
	f.StringVar(&c.RunwareURL, "runware-url", "https://api.runware.ai/v1", "base URL of the Runware API")
	f.StringVar(&c.KeyFile, "runware-key-file", "", "file that holds the Runware key ("+envPrefix+"RUNWARE_KEY holds it too)")
	f.StringVar(&c.APIKeys, "api-keys", "", "file of API keys, a line each: name, space, key")
	f.StringSliceVar(&c.Hosts, "host", nil, "host name under which the API may be asked, beside its own address")
	f.IntVar(&c.MaxOpen, "max-open", orchestrator.DefaultMaxOpen, "open generations at which creates are refused (503, busy); what your provider makes within a deadline is a good measure")
	f.IntVar(&c.MaxCreates, "max-creates", orchestrator.DefaultMaxCreates, "creates that are worked on at a time; others are refused (503, busy)")
	f.BoolVarP(&c.Verbose, "verbose", "v", false, "log every decision")
	f.String("config", "", "JSON file of these settings by flag name, and of \"providers\"")
}

// resolve fills what no flag gave from the environment, and what that did not
// give from the file. Unknown names in the file are errors.
func (c *config) resolve(cmd *cobra.Command) error {
	flags := cmd.Flags()
	var fromEnv error
	flags.VisitAll(func(f *pflag.Flag) {
		if v, ok := os.LookupEnv(envName(f.Name)); ok && !f.Changed {
			if err := flags.Set(f.Name, v); err != nil {
				fromEnv = errors.Join(fromEnv, fmt.Errorf("%s: %w", envName(f.Name), err))
			}
		}
	})
	if fromEnv != nil {
		return fromEnv
	}
	c.RunwareKey = os.Getenv(envPrefix + "RUNWARE_KEY")
	if path, _ := flags.GetString("config"); path != "" {
		if err := c.readFile(path, flags); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	if c.RunwareKey == "" && c.KeyFile != "" {
		key, err := readSecret(c.KeyFile)
		if err != nil {
			return err
		}
		c.RunwareKey = key
	}
	if c.MaxOpen < 0 || c.MaxCreates < 0 {
		return fmt.Errorf("--max-open %d, --max-creates %d: neither can be negative", c.MaxOpen, c.MaxCreates)
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	c.Data = data
	if c.Bucket == "" {
		c.Bucket = filepath.Join(data, "bucket") // a path: in a URL, % and ? would mean something
	}
	return nil
}

func (c *config) readFile(path string, flags *pflag.FlagSet) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(raw, &file); err != nil {
		return err
	}
	for name, value := range file {
		switch name {
		case "providers":
			d := json.NewDecoder(bytes.NewReader(value))
			d.DisallowUnknownFields()
			if err := d.Decode(&c.Providers); err != nil {
				return fmt.Errorf("providers: %w", err)
			}
		case "runware-key":
			if c.RunwareKey == "" {
				if err := json.Unmarshal(value, &c.RunwareKey); err != nil {
					return fmt.Errorf("runware-key: %w", err)
				}
			}
		default:
			f := flags.Lookup(name)
			if f == nil || name == "config" {
				return fmt.Errorf("%q is not a setting", name)
			}
			if f.Changed {
				continue
			}
			if err := flags.Set(name, strings.Trim(string(value), `"`)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// providers is the configured providers; none means the simulated one.
func (c *config) providers() ([]providerConfig, error) {
	list := slices.Clone(c.Providers)
	if c.RunwareKey != "" && !slices.ContainsFunc(list, func(p providerConfig) bool { return p.Name == "runware" }) {
		list = append(list, providerConfig{Name: "runware", Kind: "runware", URL: c.RunwareURL, Key: c.RunwareKey})
	}
	for i := range list {
		p := &list[i]
		if p.Name == "" || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || len(p.Name) > 32 {
			return nil, fmt.Errorf("provider %q: a name has 1 to 32 of the characters a-z 0-9 _ -", p.Name)
		}
		if p.Kind != "runware" && p.Kind != "sim" {
			return nil, fmt.Errorf("provider %s: kind %q is neither runware nor sim", p.Name, p.Kind)
		}
		if p.Key == "" && p.KeyFile != "" {
			key, err := readSecret(p.KeyFile)
			if err != nil {
				return nil, err
			}
			p.Key = key
		}
		if p.Kind == "runware" && p.URL == "" {
			p.URL = c.RunwareURL
		}
	}
	return list, nil
}

func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if key == "" {
		return "", fmt.Errorf("read key: %s is empty", path)
	}
	return key, nil
}
