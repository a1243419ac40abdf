package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
)

// Creates and rescues are answered by the orchestrators, as they are over NATS: the same
// checks and the same answers as for a requester who asks them himself. The names are theirs.
const (
	createSubject    = "genstream.generations.create"
	rescueSubject    = "genstream.generations.rescue"
	completedSubject = "genstream.completed." // + ID

	headerID        = "Gen-Id"
	headerKey       = "Idempotency-Key"
	headerRequester = "Gen-Requester"

	headerErrorCode = "Nats-Service-Error-Code" // of nats.go/micro
)

// createTimeout is longer than what an orchestrator takes at most, so that its
// own answer is what the client gets.
const createTimeout = 6 * time.Second

// maxWait bounds Prefer: wait.
const maxWait = 60 * time.Second

type createInput struct {
	Key     string `header:"Idempotency-Key" doc:"the same key with the same request is the same generation, however often it is sent; at most 255 bytes"`
	Prefer  string `header:"Prefer" doc:"wait=N: answer with the whole generation if it completes within N seconds (1 to 60; RFC 7240)"`
	RawBody []byte
}

type putInput struct {
	ID      string `path:"id" doc:"a UUIDv7 whose time is within 24 hours of now"`
	Prefer  string `header:"Prefer" doc:"wait=N: answer with the whole generation if it completes within N seconds (1 to 60; RFC 7240)"`
	RawBody []byte
}

type rescueInput struct {
	ID     string `path:"id"`
	Prefer string `header:"Prefer" doc:"wait=N: answer with the whole generation if it completes within N seconds (1 to 60; RFC 7240)"`
}

func (a *api) registerCreate() {
	answers := map[int]answer{
		http.StatusAccepted: {
			about:   "The request is in the log and on disk; everything after that is ours to do",
			content: map[string]reflect.Type{"application/json": reflect.TypeFor[created]()},
			headers: map[string]string{"Location": "where the generation is read"},
		},
		http.StatusOK: {
			about:   "It completed within the time given in Prefer",
			content: map[string]reflect.Type{"application/json": reflect.TypeFor[generation]()},
			headers: map[string]string{"Preference-Applied": "wait=N", "Location": "where the generation is read"},
		},
	}
	problems := []kind{malformed, slow, tooLarge, invalid, reused, busy, noRoom, unavailable}
	register(a, operation{
		id: "create", method: http.MethodPost, path: "/v1/generations",
		summary: "Ask for a generation",
		about: "Send it again with the same Idempotency-Key after any answer of 5xx, or none: it is made once. " +
			"The checks of a provider and of its model are made here, so what is accepted can be sent.",
		answers: answers, problems: problems, body: reflect.TypeFor[request](),
	}, func(ctx context.Context, in *createInput) (*reply, error) {
		return a.create(ctx, "", in.Key, in.Prefer, in.RawBody)
	})
	register(a, operation{
		id: "put", method: http.MethodPut, path: "/v1/generations/{id}",
		summary: "Ask for a generation under an ID of your own",
		about:   "The same ID with the same request is the same generation, however often it is sent; with another request it is refused.",
		answers: answers, problems: problems, body: reflect.TypeFor[request](),
	}, func(ctx context.Context, in *putInput) (*reply, error) {
		if _, err := parseID(in.ID); err != nil {
			return nil, err
		}
		return a.create(ctx, in.ID, "", in.Prefer, in.RawBody)
	})
	register(a, operation{
		id: "rescue", method: http.MethodPost, path: "/v1/generations/{id}/rescue",
		summary: "Fetch what a generation missed",
		about: "Makes a new generation that adopts the tasks of this one, of those outputs that got no artifact: one of them at least " +
			"must have failed for want of time or of a file. The provider is asked once, and what is there by now is fetched; nothing is bought. " +
			"Asked again, it is the same new generation.",
		answers: answers, problems: []kind{invalid, notFound, busy, noRoom, unavailable},
	}, func(ctx context.Context, in *rescueInput) (*reply, error) {
		id, err := parseID(in.ID)
		if err != nil {
			return nil, err
		}
		c, err := a.ask(ctx, rescueSubject, "", "", []byte(id))
		if err != nil {
			return nil, err
		}
		return a.promised(ctx, c, in.Prefer)
	})
}

func parseID(s string) (events.ID, error) {
	id, err := events.ParseID(s)
	if err != nil {
		return "", invalid.at("path.id", "must be a generation's ID: a UUID of version 7 or 8 in lower case")
	}
	return id, nil
}

func (a *api) create(ctx context.Context, id, key, prefer string, body []byte) (*reply, error) {
	if len(body) > maxBody {
		return nil, tooLarge.at("body", "has at most "+strconv.Itoa(maxBody)+" bytes")
	}
	c, err := a.ask(ctx, createSubject, id, key, body)
	if err != nil {
		return nil, err
	}
	return a.promised(ctx, c, prefer)
}

// promised answers with what an orchestrator has accepted.
func (a *api) promised(ctx context.Context, c created, prefer string) (*reply, error) {
	location := "/v1/generations/" + string(c.ID)
	if wait := waitOf(prefer); wait > 0 && a.completes(ctx, c.ID, wait) {
		g, _, err := a.cfg.Log.Peek(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		return jsonReply(http.StatusOK,
			func(b *bytes.Buffer) error { return encode(b, events.Public(g)) },
			"Location", location, "Preference-Applied", "wait="+strconv.Itoa(int(wait.Seconds())))
	}
	return jsonReply(http.StatusAccepted, func(b *bytes.Buffer) error { return encode(b, c) }, "Location", location)
}

// again is what a client is told when nobody knows whether its request arrived.
const again = "the request may have been accepted; send it again with the same ID or Idempotency-Key"

// ask has an orchestrator accept the request.
func (a *api) ask(ctx context.Context, subject, id, key string, body []byte) (created, error) {
	m := nats.NewMsg(subject)
	for name, value := range map[string]string{headerID: id, headerKey: key, headerRequester: requester(ctx)} {
		if value != "" {
			m.Header.Set(name, value)
		}
	}
	m.Data = body
	waiting, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	answer, err := a.cfg.Ask(waiting, m)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return created{}, tooLarge.at("body", "is larger than NATS takes here")
	case errors.Is(err, nats.ErrNoResponders):
		return created{}, unavailable.because("no orchestrator is running; nothing was accepted")
	case err != nil:
		return created{}, unavailable.because(again)
	}
	if code := answer.Header.Get(headerErrorCode); code != "" {
		return created{}, passedOn(code, answer.Data)
	}
	var c created
	if err := json.Unmarshal(answer.Data, &c); err != nil || c.ID == "" {
		return created{}, unavailable.because(again)
	}
	return c, nil
}

// passedOn is an orchestrator's problem as it told it. An answer that is none
// leaves open what happened.
func passedOn(code string, body []byte) error {
	n, err := strconv.Atoi(code)
	var p problem
	if err != nil || n < 400 || n > 599 || json.Unmarshal(body, &p) != nil || !strings.HasPrefix(p.Type, kindURN) {
		return unavailable.because(again)
	}
	p.Code = n
	for _, k := range kinds { // one title for each type, whoever wrote it
		if p.Type == kindURN+string(k.kind) {
			p.Title = k.title
		}
	}
	return &p
}

// waitOf is the wait of a Prefer header (RFC 7240), at most maxWait, 0 without
// one. A preference that cannot be honoured is passed over, as the RFC says.
func waitOf(prefer string) time.Duration {
	for p := range strings.SplitSeq(prefer, ",") {
		p, _, _ = strings.Cut(p, ";")
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		n, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
		if err != nil || n < 1 {
			return 0
		}
		return min(time.Duration(n)*time.Second, maxWait)
	}
	return 0
}

// completes waits for the generation's last commit and says whether it came in
// time. A completion is announced, at most once, so the log is asked now and then
// too. Whatever goes wrong meanwhile, the request itself is accepted.
func (a *api) completes(ctx context.Context, id events.ID, wait time.Duration) bool {
	if !a.enter() {
		return false // a preference, not a promise
	}
	defer a.leave()
	lasting(ctx, wait)
	ctx, cancel := a.untilStopping(ctx)
	defer cancel()
	ctx, cancelWait := context.WithTimeout(ctx, wait)
	defer cancelWait()
	told := make(chan *nats.Msg, 1)
	heard, err := a.cfg.NATS.ChanSubscribe(completedSubject+string(id), told)
	if err != nil {
		return false
	}
	defer func() { _ = heard.Unsubscribe() }() // the connection is gone: so is the subscription
	ask := time.NewTicker(time.Second)
	defer ask.Stop()
	for {
		if _, head, err := a.cfg.Log.Peek(ctx, id); err == nil && head.Done {
			return true
		}
		select {
		case <-told:
		case <-ask.C:
		case <-ctx.Done():
			return false
		}
	}
}
