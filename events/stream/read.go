package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
)

// Load folds the commits of one generation, for a decision: it reads from the
// stream's leader. The error wraps ErrNotFound if there are none,
// events.ErrMalformed if one cannot be decoded.
func (l *Log) Load(ctx context.Context, id events.ID) (events.Generation, Head, error) {
	return l.load(ctx, id, true)
}

// Peek is Load for readers: on a cluster it may be answered by a replica that
// lags behind, and then shows a generation as it was. That there is none is the
// leader's word all the same.
func (l *Log) Peek(ctx context.Context, id events.ID) (events.Generation, Head, error) {
	return l.PeekAt(ctx, id, 0)
}

// PeekAt is Peek for whoever has an idea where the commit is that completed the
// generation, 0 for none: a message at a sequence is found sooner than the last one
// of a subject. The idea need not be right.
func (l *Log) PeekAt(ctx context.Context, id events.ID, done uint64) (events.Generation, Head, error) {
	e, err := l.end(ctx, id, done)
	if err != nil {
		return events.Generation{}, Head{}, fmt.Errorf("load generation=%s: %w", id, err)
	}
	g, head, err := l.fold(ctx, id, e, false)
	if err != nil {
		return g, head, err
	}
	return g, head, l.Await(ctx, head.Sequence) // a reader is shown only what is on disk
}

// end is the last commit, for readers: the one at done if that completes the
// generation, since nothing comes after it.
func (l *Log) end(ctx context.Context, id events.ID, done uint64) (Entry, error) {
	if done > 0 {
		if e, err := l.at(ctx, done, false); err == nil && e.ID == id && e.Completes() {
			return e, nil
		}
	}
	return l.last(ctx, id, false)
}

func (l *Log) load(ctx context.Context, id events.ID, leader bool) (events.Generation, Head, error) {
	e, err := l.last(ctx, id, leader)
	if err != nil {
		return events.Generation{}, Head{}, fmt.Errorf("load generation=%s: %w", id, err)
	}
	return l.fold(ctx, id, e, leader)
}

// fold goes back from the last commit.
func (l *Log) fold(ctx context.Context, id events.ID, e Entry, leader bool) (events.Generation, Head, error) {
	head := e.Head()
	c, err := e.Decode()
	if err != nil {
		return events.Generation{}, head, fmt.Errorf("load generation=%s: %w", id, err)
	}
	if done, ok := c.Events[len(c.Events)-1].(events.Completed); ok {
		g := done.Generation // the whole record: one read is enough
		g.At = c.At
		return g, head, nil
	}
	commits := []events.Commit{c}
	for c.Prev != 0 {
		if e, err = l.at(ctx, c.Prev, leader); err == nil {
			c, err = e.Decode()
		}
		if err != nil {
			return events.Generation{}, head, fmt.Errorf("load generation=%s: %w", id, err)
		}
		commits = append(commits, c)
	}
	var g events.Generation
	for _, c := range slices.Backward(commits) {
		g = events.Fold(g, c)
	}
	return g, head, nil
}

// Salvage is Load for a generation among whose commits is one that cannot be read,
// or that none of us has written: it goes through the subject from the front,
// which may take long, and folds what it can. Whoever appends after that head
// goes on from there. bad are the entries that it left out.
func (l *Log) Salvage(ctx context.Context, id events.ID) (g events.Generation, head Head, bad []Entry, err error) {
	for from := uint64(1); ; from = head.Sequence + 1 {
		e, err := l.askDirect(ctx, "$JS.API.DIRECT.GET."+Name,
			[]byte(`{"seq":`+strconv.FormatUint(from, 10)+`,"next_by_subj":"`+Subject(id)+`"}`))
		if errors.Is(err, ErrNotFound) && from > 1 {
			return g, head, bad, nil
		}
		if err != nil {
			return g, head, bad, fmt.Errorf("salvage generation=%s: %w", id, err)
		}
		c, err := e.Decode()
		if err != nil || e.Version != head.Version+1 {
			bad = append(bad, e)
			head.Sequence = e.Sequence // what comes next is appended after it all the same
			continue
		}
		g, head = events.Fold(g, c), e.Head()
	}
}

// Head is the end of one generation's commits, for whoever appends: a head that
// is not the last one any more is refused then. It is read from the leader, unless
// this process knows it. The error wraps ErrNotFound if there are no commits.
func (l *Log) Head(ctx context.Context, id events.ID) (Head, error) {
	if head, known := l.heads.find(id); known {
		return head, nil
	}
	e, err := l.last(ctx, id, true)
	if err != nil {
		return Head{}, fmt.Errorf("read head of generation=%s: %w", id, err)
	}
	return e.Head(), nil
}

// History is every commit of one generation, oldest first. The error wraps
// ErrNotFound if there are none.
func (l *Log) History(ctx context.Context, id events.ID) ([]Entry, error) {
	return l.HistoryAt(ctx, id, 0)
}

// HistoryAt is History for whoever has an idea of the last commit, as with PeekAt.
func (l *Log) HistoryAt(ctx context.Context, id events.ID, done uint64) ([]Entry, error) {
	e, err := l.end(ctx, id, done)
	if err != nil {
		return nil, fmt.Errorf("read generation=%s: %w", id, err)
	}
	if err := l.Await(ctx, e.Sequence); err != nil {
		return nil, err
	}
	all := []Entry{e}
	for e.Prev != 0 {
		if e, err = l.at(ctx, e.Prev, false); err != nil {
			return nil, fmt.Errorf("read generation=%s: %w", id, err)
		}
		all = append(all, e)
	}
	slices.Reverse(all)
	return all, nil
}

// At is the entry at a stream sequence. The error wraps ErrNotFound if there is none.
func (l *Log) At(ctx context.Context, sequence uint64) (Entry, error) {
	return l.at(ctx, sequence, false)
}

func (l *Log) last(ctx context.Context, id events.ID, leader bool) (Entry, error) {
	if leader && !l.single {
		return l.askLeader(ctx, map[string]any{"last_by_subj": Subject(id)})
	}
	e, err := l.askDirect(ctx, "$JS.API.DIRECT.GET."+Name+"."+Subject(id), nil)
	if errors.Is(err, ErrNotFound) && !l.single {
		return l.last(ctx, id, true) // a replica that lags does not know what there is not
	}
	return e, err
}

func (l *Log) at(ctx context.Context, sequence uint64, leader bool) (Entry, error) {
	if l.stored != nil {
		if e, ok := l.stored(sequence); ok {
			l.gate.wrote(sequence)
			return e, nil
		}
	}
	if leader && !l.single {
		return l.askLeader(ctx, map[string]any{"seq": sequence})
	}
	e, err := l.askDirect(ctx, "$JS.API.DIRECT.GET."+Name, []byte(`{"seq":`+strconv.FormatUint(sequence, 10)+`}`))
	if errors.Is(err, ErrNotFound) && !l.single {
		return l.at(ctx, sequence, true) // another replica answered than the one that knew of it
	}
	return e, err
}

// askDirect is a direct get (ADR-31): raw message, its place in headers, no JSON.
func (l *Log) askDirect(ctx context.Context, subject string, request []byte) (Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := l.nc.RequestWithContext(ctx, subject, request)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	switch code := m.Header.Get("Status"); code {
	case "":
	case "404":
		return Entry{}, ErrNotFound
	default:
		return Entry{}, fmt.Errorf("%w: direct get: %s %s", ErrUnavailable, code, m.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("direct get: no sequence: %w", err)
	}
	stored, _ := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	return l.entry(m.Header.Get(jetstream.SubjectHeader), seq, stored, m.Header, m.Data), nil
}

// askLeader is a get that only the stream's leader answers.
func (l *Log) askLeader(ctx context.Context, request map[string]any) (Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return Entry{}, err
	}
	m, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+Name, body)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return Entry{}, fmt.Errorf("get message: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Entry{}, ErrNotFound
	case answer.Error != nil:
		return Entry{}, fmt.Errorf("%w: %w", ErrUnavailable, answer.Error)
	case answer.Message == nil:
		return Entry{}, errors.New("get message: empty answer")
	}
	var header nats.Header
	if len(answer.Message.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return Entry{}, fmt.Errorf("get message: %w", err)
		}
	}
	return l.entry(answer.Message.Subject, answer.Message.Seq, answer.Message.Time, header, answer.Message.Data), nil
}
