// Package runware speaks the REST API of Runware (one URL, Bearer key, an array
// of tasks in, data[] and errors[] out) for the orchestrator.
//
// # Usage
//
//	p := runware.New(runware.Config{Name: "runware", Key: key})
//	answer, err := p.Create(ctx, call)
//
// # Requests
//
// A generation's input is merged into each task as it was written, key by key.
// The keys that genstream itself rests on are its own: taskUUID, model,
// numberResults, webhookURL, deliveryMethod, includeCost, ttl, uploadEndpoint and
// those of authentication are refused in an input. Two keys may be given one of a few values:
//
//	taskType    imageInference (default), videoInference, audioInference, 3dInference
//	outputType  URL (default), base64Data, dataURI
//
// Everything else, width and height included, is for the server to judge: its
// bounds are the model's.
//
// # Answers
//
// The body is looked at first and the HTTP code second: there are answers of 200
// with errors, and of 400 with results. What is not said clearly is not said at
// all: a task that an answer leaves open is in none of its lists. Of answers with
// large files 8 are held at a time, from their first 64 KiB until the caller closes
// the Reply; others wait, half read, within their own time.
//
// # Sources
//
// Wire format, error codes and their classes follow Runware's API reference and
// the error table of its official SDK, read in August 2026. Never confirmed on
// the live service: what exactly a repeated taskUUID gets (here: any duplicate or
// conflict code about taskUUID is an acceptance).
package runware

import (
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// DefaultBaseURL is the address of the real service.
const DefaultBaseURL = "https://api.runware.ai/v1"

// DefaultTTL is how long Runware is asked to keep output files. It is always
// said: accounts with zero data retention would otherwise lose them after 60 s.
const DefaultTTL = 24 * time.Hour

// Config is one configured instance.
type Config struct {
	Name      string            // of the instance, for people
	BaseURL   string            // empty = DefaultBaseURL
	Key       string            // sent as Bearer token, shown nowhere
	Transport http.RoundTripper // nil = a transport of its own, without a proxy
	TTL       time.Duration     // 0 = DefaultTTL; Runware's minimum is 60 s
	SpoolDir  string            // folder for inline files on their way; empty = os.TempDir()
}

// String leaves the key out.
func (c Config) String() string { return "runware " + c.Name + " at " + c.BaseURL }

// GoString leaves the key out.
func (c Config) GoString() string { return c.String() }

// Provider implements provider.Provider.
type Provider struct {
	cfg    Config
	client *http.Client
	turns  *inline.Turns
}

var _ provider.Provider = (*Provider)(nil)

// New does no I/O: a wrong address or key shows in the first call.
func New(cfg Config) *Provider {
	if cfg.BaseURL == "" {
		cfg.BaseURL = DefaultBaseURL
	}
	if cfg.TTL <= 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: idleConns,
			IdleConnTimeout:     90 * time.Second,
			ForceAttemptHTTP2:   true,
		}
	}
	return &Provider{cfg: cfg, turns: inline.NewTurns(maxLarge), client: &http.Client{
		Transport: cfg.Transport,
		// A create call that follows a redirect could be made twice.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// idleConns is how many connections to the provider are kept open. With fewer than
// there are calls at a time, the others are closed after each call and opened,
// with a handshake, before the next.
const idleConns = 256

// String names the instance; the key is not in it.
func (p *Provider) String() string { return p.cfg.String() }

// GoString is String.
func (p *Provider) GoString() string { return p.String() }

// scrub takes the key out of a text that came from outside.
func (p *Provider) scrub(s string) string {
	if len(p.cfg.Key) < 4 {
		return s
	}
	return strings.ReplaceAll(s, p.cfg.Key, "[key]")
}
