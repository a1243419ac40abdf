package api

import (
	"bytes"
	"context"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector"
)

// Config is what the API works with. Log, Bucket, Projector and NATS must be set.
type Config struct {
	Log       *stream.Log
	Bucket    *blob.Bucket
	Projector *projector.Projector
	NATS      *nats.Conn // on which orchestrators answer creates; its inbox is one that they answer to
	Logger    *slog.Logger

	// Ask has the orchestrator of this process answer a request that would otherwise
	// go over NATS, with nats.ErrNoResponders while it does not run; nil: there is none.
	Ask func(context.Context, *nats.Msg) (*nats.Msg, error)

	// Keys says who may ask; nil: everybody who reaches the listener, which is
	// then for loopback addresses only.
	Keys *Keys

	// Hosts are names, with or without a port, that this server answers to besides
	// localhost and the address that the connection came in on.
	Hosts []string

	// Stopping ends when the server begins to stop: streams and long polls, which
	// http.Server.Shutdown would wait for, end with it. Nil: never.
	Stopping context.Context

	Health  func() error // why this process should be restarted; nil = never
	Passing func() error // what is wrong and needs no restart: /healthz names it; nil = nothing ever. Joined errors are told one by one.
	Ready   func() error // why it should get no requests just now; nil = never. Joined errors are told one by one.
	Metrics http.Handler // served at /metrics if not nil

	Room  func() error // why nothing more may be written; nil = there is room. Asked before each upload.
	Spool string       // directory for uploads on their way to the bucket; empty = os.TempDir

	Simulated bool // the page says that the provider is simulated

	// Open is what is in flight, oldest first, in a process that also runs the
	// orchestrator; nil: the page and GET /v1/open know of none.
	Open func() []events.View
}

type api struct {
	cfg     Config
	log     *slog.Logger
	keys    *Keys
	hosts   hosts
	streams chan struct{} // places for streams and waits
	uploads chan struct{} // places for uploads
	mux     *http.ServeMux
	huma    huma.API
	locked  *template.Template // the page that says why there is none
}

// New is the handler of the HTTP API and the page. It panics if cfg lacks what
// must be set. The handler holds no goroutine beyond its requests.
func New(cfg Config) http.Handler {
	if cfg.Log == nil || cfg.Bucket == nil || cfg.Projector == nil || cfg.NATS == nil {
		panic("api: Config without Log, Bucket, Projector or NATS")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Ask == nil {
		cfg.Ask = cfg.NATS.RequestMsgWithContext
	}
	a := &api{
		cfg: cfg, log: cfg.Logger, keys: cfg.Keys, hosts: cfg.Hosts,
		streams: make(chan struct{}, maxStreams), uploads: make(chan struct{}, maxUploads), mux: http.NewServeMux(),
	}
	a.huma = humago.New(a.mux, humaConfig())
	a.huma.UseMiddleware(a.checkQuery)
	a.registerCreate()
	a.registerGeneration()
	a.registerLists()
	a.registerContent()
	a.registerFiles()
	a.registerHealth()
	a.document()
	a.page()
	a.mux.HandleFunc("/", a.nothing)
	return a.guard(a.mux)
}

// document serves the OpenAPI document of what is registered. huma would write
// it at the first request, and race with the second.
func (a *api) document() {
	spec := a.huma.OpenAPI()
	for _, name := range []string{"ErrorModel", "ErrorDetail"} { // huma's; ours is Problem
		delete(spec.Components.Schemas.Map(), name)
	}
	body, err := json.Marshal(spec)
	if err != nil {
		panic(err) // it is part of the program
	}
	a.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		set(w.Header(), []string{"Content-Type", "application/openapi+json", "Cache-Control", "no-cache", "ETag", `"` + events.Digest(body) + `"`})
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}

// nothing answers for paths that are not there, and for methods that do not fit:
// the mux would do so in plain text.
func (a *api) nothing(w http.ResponseWriter, r *http.Request) {
	var allowed string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := a.mux.Handler(probe); pattern != "/" {
			allowed += ", " + method
		}
	}
	if allowed == "" {
		notFound.because("nothing is at this path").write(w)
		return
	}
	w.Header().Set("Allow", allowed[2:])
	noMethod.because("this path takes " + allowed[2:]).write(w)
}
