package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
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
	HeaderRetry     = "Retry-After"     // of an answer with 503: seconds
)

// Subjects of requests over NATS.
const (
	CreateSubject = "genstream.generations.create"
	GetSubject    = "genstream.generations.get"
	RescueSubject = "genstream.generations.rescue"
)

// Serve answers requests on CreateSubject, GetSubject and RescueSubject as a NATS
// micro service, and those that Answer is given, until ctx ends. Answers go to inboxes
// only: a reply subject such as gen.<id> would have us write into the log in a
// requester's name.
func (o *Orchestrator) Serve(ctx context.Context, nc *nats.Conn) error {
	endpoints, err := micro.AddService(nc, micro.Config{
		Name: "genstream", Version: "0.1.0",
		Description: "generations of media: create, and read by ID",
	})
	if err != nil {
		return err
	}
	defer func() { _ = endpoints.Stop() }()
	for _, subject := range []string{CreateSubject, GetSubject, RescueSubject} {
		name := subject[strings.LastIndexByte(subject, '.')+1:]
		if err := endpoints.AddEndpoint(name, o.endpoint(ctx), micro.WithEndpointSubject(subject)); err != nil {
			return err
		}
	}
	if !o.cfg.Log.Queued() {
		if err := o.serveSubmissions(ctx, nc); err != nil {
			return err
		}
	}
	o.answering.Store(true)
	defer o.answering.Store(false)
	<-ctx.Done()
	return nil
}

// Answer answers a request of this process as Serve would if it came over NATS,
// with the same message and without the way there and back. The error is
// nats.ErrNoResponders while Serve does not run.
func (o *Orchestrator) Answer(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if !o.answering.Load() {
		return nil, nats.ErrNoResponders
	}
	o.wg.Add(1)
	defer o.wg.Done()
	body, p := o.answer(ctx, m.Subject, m.Header, m.Data)
	if p == nil {
		return &nats.Msg{Data: body}, nil
	}
	return &nats.Msg{Data: p.JSON(), Header: nats.Header(headersOf(p))}, nil
}

// endpoint answers each request from a goroutine of its own: an append waits for
// the disk, and many share one sync. The places bound how many. Whoever finds none
// is told at once: to wait for one here would have the others wait in the client's
// buffer, unseen, until they are dropped from it.
func (o *Orchestrator) endpoint(ctx context.Context) micro.Handler {
	places := make(chan struct{}, o.cfg.MaxCreates)
	return micro.HandlerFunc(func(r micro.Request) {
		if !stream.Answerable(r.Reply()) {
			return
		}
		select {
		case places <- struct{}{}:
		default:
			p := o.refusal(o.busy(), nats.Header(r.Headers()).Get(HeaderRequester))
			_ = r.Respond(p.JSON(), micro.WithHeaders(headersOf(p)))
			return
		}
		o.wg.Go(func() {
			defer func() { <-places }()
			body, p := o.answer(ctx, r.Subject(), nats.Header(r.Headers()), r.Data())
			if p == nil {
				_ = r.Respond(body) // the connection is gone: nobody to tell
				return
			}
			// r.Error may be called only before the handler has returned: it leaves the
			// error in r for the statistics.
			_ = r.Respond(p.JSON(), micro.WithHeaders(headersOf(p)))
		})
	})
}

// headersOf is what marks an answer as a problem, as micro's own clients know it,
// with the seconds after which to come again if that may help.
func headersOf(p *Problem) micro.Headers {
	h := micro.Headers{micro.ErrorCodeHeader: {strconv.Itoa(p.Code)}, micro.ErrorHeader: {p.Title}}
	if p.Code == http.StatusServiceUnavailable {
		h[HeaderRetry] = []string{"1"}
	}
	return h
}

// answer does what a request asks for, and returns what its sender is told.
func (o *Orchestrator) answer(ctx context.Context, subject string, h nats.Header, body []byte) ([]byte, *Problem) {
	var told any
	var err error
	switch subject {
	case CreateSubject:
		told, err = o.Create(ctx, Submission{
			Body: body, ID: h.Get(HeaderID), Key: h.Get(HeaderKey), Requester: h.Get(HeaderRequester),
		})
	case GetSubject:
		told, err = o.get(ctx, body)
	case RescueSubject:
		var id events.ID
		if id, err = idOf(body); err == nil {
			told, err = o.Rescue(ctx, id)
		}
	default:
		panic("orchestrator: nothing answers " + subject)
	}
	var out []byte
	if err == nil {
		out, err = json.Marshal(told)
	}
	var p *Problem
	if err != nil && !errors.As(err, &p) {
		o.log.Error("request failed", "subject", subject, "error", err)
		p = problem(ProblemInternal, "", "the cause is in the log")
	}
	return out, p
}

// get is the generation as the log has it. The body is {"id":"…"} or the ID alone.
func (o *Orchestrator) get(ctx context.Context, body []byte) (view events.View, err error) {
	id, err := idOf(body)
	if err != nil {
		return view, err
	}
	g, _, err := o.cfg.Log.Peek(ctx, id)
	switch {
	case errors.Is(err, stream.ErrNotFound):
		return view, problem(ProblemNotFound, "", "no generation has this ID")
	case err != nil:
		return view, problem(ProblemUnavailable, "", "the log does not answer")
	}
	return events.Public(g), nil
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
