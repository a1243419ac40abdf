// Package webhook is the ingress for what providers send us.
//
// # What it does
//
// It checks the token in the path before it reads anything, hands the delivery to
// the orchestrator of this process ([Config].Bring), which commits it with what
// follows from it, or else appends it as it came, and answers 2xx once that is on
// disk. It downloads nothing, decides nothing and folds nothing: Runware gives it
// five seconds, and the headers of the generation's last commit say all it needs.
//
// # Answers
//
//	204  appended; or known already; or nothing in it but progress
//	200  the generation was completed before: nothing is appended
//	400  the body is none of the provider's, or about another generation's task
//	404  the path or the token is wrong: the same answer for all of it
//	413  the body is too long
//	429  this generation has had too many different deliveries
//	503  not appended: the log, the bucket or the disk. Send it again.
//
// A valid token for an ID that the log does not know is 503 as well: we minted
// the token, so the log must be the one that is behind.
//
// # What a crash leaves
//
// Before the append: inline files that no commit names (gc removes them), and a
// provider that was not answered and sends again. After it: a provider that
// sends again, and is recognised by the digest of its body.
package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/delivery"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// patience is how long an append is tried for before the provider is asked to
// come again. Runware gives five seconds in all.
const patience = 4 * time.Second

// Bodies over largeBody hold files, up to 17 MiB of which may be in memory at a
// time. Few are read at once; others are asked to come again.
const (
	largeBody = 1 << 20
	maxLarge  = 8
)

// bodyTimeout is for the whole body: a place is not held for one that trickles.
const bodyTimeout = time.Minute

// Log is what deliveries are appended to: a *stream.Log.
type Log interface {
	Head(context.Context, events.ID) (stream.Head, error)
	Append(context.Context, events.ID, stream.Head, time.Time, ...events.Event) (events.Commit, stream.Head, error)
	Await(ctx context.Context, sequence uint64) error
	Later(ctx context.Context, try int) error
}

// Config is what a Handler works with. Log, Bucket, Providers, Keys and Logger must be set.
type Config struct {
	Log       Log
	Bucket    *blob.Bucket
	Providers map[string]provider.Provider // by instance name
	Keys      Keys
	Logger    *slog.Logger
	Spool     string // directory for large inline files on their way to the bucket; empty = os.TempDir

	// Loose has webhooks answered before they are on disk: a power cut may take one
	// back, and its results are asked for then.
	Loose bool

	// Bring has the orchestrator of this process commit a delivery, with what follows
	// from it, and returns the sequence by which the log says it; false: it does not,
	// and the delivery is appended here. Nil: there is no orchestrator here.
	Bring func(context.Context, events.ID, events.Delivered) (sequence uint64, taken bool)
}

// Handler serves POST /hooks/{provider}/{id}/{token} and nothing else.
type Handler struct {
	cfg       Config
	mux       *http.ServeMux
	places    chan struct{} // bodies being read
	large     chan struct{} // those of them that may be over largeBody
	delivered *prometheus.CounterVec
}

// New makes a Handler. It panics without keys: anybody could send pictures then.
func New(cfg Config) *Handler {
	if len(cfg.Keys) == 0 || len(cfg.Keys[0]) < 16 {
		panic("webhook: Config without a key of 16 bytes")
	}
	h := &Handler{
		cfg: cfg, mux: http.NewServeMux(), places: make(chan struct{}, 256), large: make(chan struct{}, maxLarge),
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "genstream_webhooks_total", Help: "Webhooks received, by provider and fate.",
		}, []string{"provider", "fate"}),
	}
	h.mux.HandleFunc("POST /hooks/{provider}/{id}/{token}", h.receive)
	return h
}

// Collector is the handler's metrics.
func (h *Handler) Collector() prometheus.Collector { return h.delivered }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	// A mux redirects from a path that is not clean: no provider follows that.
	if _, pattern := h.mux.Handler(r); pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
		notFound(w)
		return
	}
	h.mux.ServeHTTP(w, r)
}

func notFound(w http.ResponseWriter) { http.Error(w, "not found", http.StatusNotFound) }

func (h *Handler) receive(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("provider")
	id, err := events.ParseID(r.PathValue("id"))
	p := h.cfg.Providers[name]
	if err != nil || p == nil || !h.cfg.Keys.valid(name, id, r.PathValue("token")) {
		h.delivered.WithLabelValues("", "forged").Inc()
		h.cfg.Logger.Debug("webhook", "fate", "forged", "code", http.StatusNotFound)
		notFound(w)
		return
	}
	// A connection without deadlines is a test's.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	fate, code, err := h.take(r, p, id)
	h.delivered.WithLabelValues(name, fate).Inc()
	h.tell(name, id, fate, code, err)
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
}

// tell logs what became of a webhook: one line each. That of a commit was told
// as a commit.
func (h *Handler) tell(name string, id events.ID, fate string, code int, err error) {
	told := []any{"provider", name, "generation", id, "fate", fate, "code", code}
	switch {
	case fate == "appended":
	case err != nil:
		h.cfg.Logger.Warn("webhook", append(told, "error", err)...)
	default:
		h.cfg.Logger.Debug("webhook", told...)
	}
}

// take brings one delivery into the log. It returns what became of it, as a
// metric label, the HTTP code that says so, and what went wrong if it is worth a
// look.
func (h *Handler) take(r *http.Request, p provider.Provider, id events.ID) (fate string, code int, err error) {
	ctx := r.Context()
	head, err := h.cfg.Log.Head(ctx, id)
	switch {
	case err != nil:
		return failed("no_log", err)
	case head.Done:
		return h.known(ctx, head, "late", http.StatusOK)
	case head.Deliveries() >= events.MaxSeen:
		return "crowded", http.StatusTooManyRequests, nil
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	case <-waiting.Done():
		return "busy", http.StatusServiceUnavailable, nil
	}
	if r.ContentLength < 0 || r.ContentLength > largeBody {
		select {
		case h.large <- struct{}{}:
			defer func() { <-h.large }()
		default:
			return "busy", http.StatusServiceUnavailable, nil
		}
	}
	reply, err := inline.Read(r.Body, inline.Limits{Dir: h.cfg.Spool})
	if err != nil {
		if errors.Is(err, inline.ErrTooLarge) {
			return "too_large", http.StatusRequestEntityTooLarge, nil
		}
		if errors.Is(err, inline.ErrDisk) {
			return failed("no_disk", err)
		}
		return "malformed", http.StatusBadRequest, nil
	}
	defer reply.Close()
	if head.HasSeen(reply.Digest) {
		return h.known(ctx, head, "repeated", http.StatusNoContent)
	}
	results, err := p.Parse(reply.Body)
	switch {
	case err != nil:
		return "malformed", http.StatusBadRequest, nil
	case len(results) == 0:
		return "progress", http.StatusNoContent, nil
	}
	// A provider is told the address of the generation that buys: nothing is adopted here.
	own := func(task string) (int, bool) { return delivery.Slot(id, task) }
	d, err := delivery.Of(ctx, h.cfg.Bucket, id, own, events.FromWebhook, reply, results)
	switch {
	case errors.Is(err, delivery.ErrAlien), errors.Is(err, delivery.ErrCrowded):
		return "alien", http.StatusBadRequest, nil
	case errors.Is(err, blob.ErrBucket):
		return failed("no_bucket", err)
	case err != nil:
		return "malformed", http.StatusBadRequest, err
	}
	if err := fault.Hit("webhook.before"); err != nil {
		return failed("no_log", err)
	}
	return h.append(ctx, id, head, d)
}

// append commits the delivery after whatever the generation's last commit is by
// then: what a delivery says is true at any point of the life before completion.
func (h *Handler) append(ctx context.Context, id events.ID, head stream.Head, d events.Delivered) (fate string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if h.cfg.Bring != nil {
		if sequence, taken := h.cfg.Bring(ctx, id, d); taken {
			return h.known(ctx, stream.Head{Sequence: sequence}, "appended", http.StatusNoContent)
		}
		if ctx.Err() != nil {
			return failed("no_log", ctx.Err())
		}
	}
	for try := 0; ; try++ {
		c, now, err := h.cfg.Log.Append(ctx, id, head, events.Now(), d)
		if err == nil {
			h.cfg.Logger.Info("committed", "generation", id, "types", d.Type(), "version", c.Version, "sequence", c.Sequence)
			return h.known(ctx, now, "appended", http.StatusNoContent)
		}
		if !errors.Is(err, stream.ErrConflict) {
			return failed("no_log", err)
		}
		if err := h.cfg.Log.Later(ctx, try); err != nil {
			return failed("no_log", err)
		}
		if head, err = h.cfg.Log.Head(ctx, id); err != nil {
			return failed("no_log", err)
		}
		switch {
		case head.Done:
			return h.known(ctx, head, "late", http.StatusOK)
		case head.HasSeen(d.Digest):
			return h.known(ctx, head, "repeated", http.StatusNoContent)
		}
	}
}

// known answers for what the log says, whoever has appended it: it counts once it is
// on disk. The provider will not tell us a second time.
func (h *Handler) known(ctx context.Context, head stream.Head, fate string, code int) (string, int, error) {
	if h.cfg.Loose {
		return fate, code, nil
	}
	if err := fault.Around("webhook.sync", func() error { return h.cfg.Log.Await(ctx, head.Sequence) }); err != nil {
		return failed("no_log", err)
	}
	return fate, code, nil
}

func failed(fate string, err error) (string, int, error) {
	return fate, http.StatusServiceUnavailable, err
}
