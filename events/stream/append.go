package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
)

// API error codes of the server that an append can meet
// (nats-server, server/errors.json).
const (
	errWrongLast         jetstream.ErrorCode = 10071
	errWrongLastInFlight jetstream.ErrorCode = 10164 // cluster: another append to the subject is being replicated
	errStorageLimit      jetstream.ErrorCode = 10023 // insufficient resources
	errStoreLimit        jetstream.ErrorCode = 10047 // insufficient storage resources available
	errStoreFailed       jetstream.ErrorCode = 10077 // maximum bytes exceeded, and other refusals of the store
)

// Append commits evs after the given head, as one message. When it returns nil
// the commit is on disk. The error wraps ErrConflict if the generation has moved
// on, events.ErrTooLarge, ErrFull, or, when ctx ends before anything is known,
// ErrUnavailable: the commit may then still be written, and only a reload tells.
//
// at is when evs were decided: it is the time that the fold gives them.
func (l *Log) Append(ctx context.Context, id events.ID, after Head, at time.Time, evs ...events.Event) (events.Commit, Head, error) {
	m, head, err := Message(id, after, at, evs...)
	if err != nil {
		return events.Commit{}, Head{}, err
	}
	l.heads.begin(id)
	if head.Sequence, err = l.publish(ctx, id, m, after.Sequence, m.Header.Get(headerCommit)); err != nil {
		l.heads.end(id, Head{})
		l.tail.unsure()
		return events.Commit{}, Head{}, fmt.Errorf("append to generation=%s: %w", id, err)
	}
	l.gate.wrote(head.Sequence)
	l.heads.end(id, head)
	l.tail.add(appended(id, m, after, head, at))
	return events.Commit{ID: id, Version: head.Version, Sequence: head.Sequence, Prev: after.Sequence, At: at, Events: evs}, head, nil
}

// Message is what Append publishes, and the head after it but for its sequence,
// which the stream gives. The error wraps events.ErrTooLarge.
func Message(id events.ID, after Head, at time.Time, evs ...events.Event) (*nats.Msg, Head, error) {
	body, err := events.Encode(at, evs)
	if err != nil {
		return nil, Head{}, fmt.Errorf("append to generation=%s: %w", id, err)
	}
	head := after.next(id, evs, body)
	m := nats.NewMsg(Subject(id))
	m.Data = body
	m.Header.Set(headerCommit, uuid.NewString())
	m.Header.Set(headerVersion, strconv.FormatUint(head.Version, 10))
	m.Header.Set(headerPrev, strconv.FormatUint(after.Sequence, 10))
	m.Header.Set(headerTypes, events.Types(evs))
	m.Header.Set(headerDigest, head.Digest)
	if head.Seen != "" {
		m.Header.Set(headerSeen, head.Seen)
	}
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(after.Sequence, 10))
	return m, head, nil
}

// publish sends the message until its fate is known. Sending it again is
// harmless: once it is stored, the expected sequence refuses every copy, and the
// refusal sends us to look for our commit.
func (l *Log) publish(ctx context.Context, id events.ID, m *nats.Msg, expected uint64, commit string) (sequence uint64, err error) {
	try := 0
	l.tally.underWay.Add(1)
	defer func() { l.tally.end(try > 0, err) }()
	for ; ; try++ {
		if l.full != nil && try == 0 { // later, a copy may be there already
			if err := l.full(); err != nil {
				return 0, err
			}
		}
		once, cancel := context.WithTimeout(ctx, requestTimeout)
		var ack *jetstream.PubAck
		err := fault.Around("append", func() (err error) {
			ack, err = l.js.PublishMsg(once, m)
			return err
		})
		cancel()
		if err == nil {
			return ack.Sequence, nil
		}
		var api *jetstream.APIError
		if errors.As(err, &api) {
			switch api.ErrorCode {
			case errWrongLast:
				if try == 0 && l.single {
					return 0, ErrConflict // the only copy was refused
				}
				// On a cluster even the first refusal may be because of itself: while
				// the leader changes, the old one and the new one can both be given it.
				return l.resolve(ctx, id, expected, commit)
			case errWrongLastInFlight: // undecided, and it may be our own copy that is in flight
			case errStorageLimit, errStoreLimit, errStoreFailed:
				return 0, fmt.Errorf("%w: %w", ErrFull, err)
			}
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrMaxPayload) {
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case <-time.After(backoff(try)):
		}
	}
}

// resolve finds out whether a refused append is refused because of itself: it
// walks back from the tail to the expected sequence and looks for the commit.
func (l *Log) resolve(ctx context.Context, id events.ID, expected uint64, commit string) (uint64, error) {
	e, err := l.last(ctx, id, true)
	for {
		switch {
		case errors.Is(err, ErrNotFound):
			return 0, ErrConflict
		case err != nil:
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case e.CommitID == commit:
			return e.Sequence, nil
		case e.Prev <= expected:
			return 0, ErrConflict
		}
		e, err = l.at(ctx, e.Prev, true)
	}
}

// Later returns after a moment in which whoever came first may end, before another
// try of what met a conflict: 5 to 10 ms, a little longer with each try, spread so
// that many do not come back together. The error is that of ctx.
func (l *Log) Later(ctx context.Context, try int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(min(try+1, 10))*5*time.Millisecond + rand.N(5*time.Millisecond)):
		return nil
	}
}

// backoff grows from 50 ms to 2 s and is spread by half, so that many who were
// refused together do not come back together.
func backoff(try int) time.Duration {
	d := min(50*time.Millisecond<<min(try, 6), 2*time.Second)
	return d/2 + rand.N(d/2)
}
