package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// Headers of a request over NATS.
const (
	HeaderID        = "Gen-Id"          // the client's own ID
	HeaderKey       = "Idempotency-Key" // or a key from which one is derived
	HeaderRequester = "Gen-Requester"   // whose key it is
)

// Serve answers requests on genstream.generations.create, .get and .rescue as a NATS
// micro service, until ctx ends. Answers go to inboxes only: a reply subject such
// as gen.<id> would have us write into the log in a requester's name.
func (o *Orchestrator) Serve(ctx context.Context, nc *nats.Conn) error {
	endpoints, err := micro.AddService(nc, micro.Config{
		Name: "genstream", Version: "0.1.0",
		Description: "generations of media: create, and read by ID",
	})
	if err != nil {
		return err
	}
	defer func() { _ = endpoints.Stop() }()
	group := endpoints.AddGroup("genstream.generations")
	for name, handle := range map[string]func(context.Context, micro.Request) ([]byte, error){
		"create": o.serveCreate,
		"get":    o.serveGet,
		"rescue": o.serveRescue,
	} {
		if err := group.AddEndpoint(name, o.endpoint(ctx, handle)); err != nil {
			return err
		}
	}
	if !o.cfg.Log.Queued() {
		if err := o.serveSubmissions(ctx, nc); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// endpoint answers each request from a goroutine of its own: an append waits for
// the disk, and many share one sync. The places bound how many.
func (o *Orchestrator) endpoint(ctx context.Context, handle func(context.Context, micro.Request) ([]byte, error)) micro.Handler {
	places := make(chan struct{}, 256)
	return micro.HandlerFunc(func(r micro.Request) {
		if !stream.Answerable(r.Reply()) {
			return
		}
		places <- struct{}{}
		o.wg.Go(func() {
			defer func() { <-places }()
			body, err := handle(ctx, r)
			var p *Problem
			switch {
			case err == nil:
				_ = r.Respond(body) // the connection is gone: nobody to tell
			case errors.As(err, &p):
				refuse(r, p)
			default:
				o.log.Error("request failed", "subject", r.Subject(), "error", err)
				refuse(r, problem(ProblemInternal, "", "the cause is in the log"))
			}
		})
	})
}

// refuse answers as r.Error does, which may be called only before the handler
// has returned: it leaves the error in r for the service's statistics.
func refuse(r micro.Request, p *Problem) {
	_ = r.Respond(p.JSON(), micro.WithHeaders(micro.Headers{
		micro.ErrorCodeHeader: {strconv.Itoa(p.Code)}, micro.ErrorHeader: {p.Title},
	}))
}

func (o *Orchestrator) serveCreate(ctx context.Context, r micro.Request) ([]byte, error) {
	h := r.Headers()
	created, err := o.Create(ctx, Submission{
		Body: r.Data(), ID: h.Get(HeaderID), Key: h.Get(HeaderKey), Requester: h.Get(HeaderRequester),
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(created)
}

// serveGet answers with the generation as the log has it. The body is {"id":"…"}
// or the ID alone.
func (o *Orchestrator) serveGet(ctx context.Context, r micro.Request) ([]byte, error) {
	id, err := idOf(r.Data())
	if err != nil {
		return nil, err
	}
	g, _, err := o.cfg.Log.Peek(ctx, id)
	switch {
	case errors.Is(err, stream.ErrNotFound):
		return nil, problem(ProblemNotFound, "", "no generation has this ID")
	case err != nil:
		return nil, problem(ProblemUnavailable, "", "the log does not answer")
	}
	return json.Marshal(events.Public(g))
}

// serveRescue has a body like that of serveGet: the generation that is rescued.
func (o *Orchestrator) serveRescue(ctx context.Context, r micro.Request) ([]byte, error) {
	id, err := idOf(r.Data())
	if err != nil {
		return nil, err
	}
	created, err := o.Rescue(ctx, id)
	if err != nil {
		return nil, err
	}
	return json.Marshal(created)
}

// idOf is the ID that a body names: {"id":"…"} or the ID alone.
func idOf(body []byte) (events.ID, error) {
	var by struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &by); err != nil {
		by.ID = string(body)
	}
	id, err := events.ParseID(by.ID)
	if err != nil {
		return "", problem(ProblemInvalid, "body.id", "must be a generation's ID")
	}
	return id, nil
}

// submitted takes one message of the queue genstream.submit. It is acknowledged
// once the promise is on disk; a crash before that brings it again, under the
// same ID. What can never be accepted is parked.
func (o *Orchestrator) submitted(w stream.Work) {
	o.goes(func() {
		o.workers <- struct{}{}
		defer func() { <-o.workers }()
		_, err := o.Create(o.background, Submission{
			Body: w.Body, ID: w.Header.Get(HeaderID), Key: w.Header.Get(HeaderKey), Requester: w.Header.Get(HeaderRequester),
			Derived: events.SubmittedID(o.requests, w.Sequence, w.Stored),
		})
		var p *Problem
		switch {
		case err == nil:
			w.Ack()
		case errors.As(err, &p) && p.Code < 500:
			if o.parkSubmission(stream.Requests, w.Sequence, p, w.Body) > 0 {
				w.Ack()
			} else {
				w.Again(time.Second)
			}
		default:
			w.Again(time.Second)
		}
	})
}

// serveSubmissions takes genstream.submit itself, where no queue does: its
// publisher is answered as by JetStream, once the promise is on disk. His
// Nats-Msg-Id is an Idempotency-Key.
func (o *Orchestrator) serveSubmissions(ctx context.Context, nc *nats.Conn) error {
	places := make(chan struct{}, 256)
	_, err := nc.QueueSubscribe(stream.SubmitSubject, "orchestrator", func(m *nats.Msg) {
		places <- struct{}{}
		o.wg.Go(func() {
			defer func() { <-places }()
			answer := o.submit(ctx, m)
			if stream.Answerable(m.Reply) {
				_ = nc.Publish(m.Reply, answer) // the connection is gone: nobody to tell
			}
		})
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", stream.SubmitSubject, err)
	}
	return nil // the connection ends the subscription
}

// submit accepts one submission, or parks it, and returns a JetStream
// acknowledgement (nats.go, jetstream.PubAck) or its error.
func (o *Orchestrator) submit(ctx context.Context, m *nats.Msg) []byte {
	s := Submission{Body: m.Data, ID: m.Header.Get(HeaderID), Key: m.Header.Get(HeaderKey), Requester: m.Header.Get(HeaderRequester)}
	if id := m.Header.Get(nats.MsgIdHdr); id != "" && s.ID == "" && s.Key == "" {
		s.Key, s.Requester = id, "submit"
	}
	created, err := o.Create(ctx, s)
	var p *Problem
	switch {
	case err == nil:
		return fmt.Appendf(nil, `{"stream":%q,"seq":%d,"id":%q}`, stream.Requests, created.Position, created.ID)
	case !errors.As(err, &p):
		p = problem(ProblemInternal, "", "the cause is in the log")
	case p.Code < 500: // taken, as a queue would have taken it, and kept for a person to look at
		if at := o.parkSubmission(stream.SubmitSubject, 0, p, m.Data); at > 0 {
			return fmt.Appendf(nil, `{"stream":%q,"seq":%d}`, stream.Parked, at)
		}
	}
	return fmt.Appendf(nil, `{"error":{"code":%d,"description":%q}}`, p.Code, p.Error())
}

// parkSubmission keeps what can never be accepted for a person to look at. It
// returns its place among what is parked, 0 if it could not be.
func (o *Orchestrator) parkSubmission(from string, sequence uint64, p *Problem, body []byte) uint64 {
	o.Metrics.Parked.Inc()
	at, err := o.cfg.Log.Park(o.background, "submit", from, sequence, p.Error(), body)
	if err != nil {
		o.log.Error("submission not parked", "sequence", sequence, "error", err)
		return 0
	}
	o.log.Warn("submission parked", "sequence", sequence, "reason", p.Error())
	return at
}
