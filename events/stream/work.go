package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// AckWait is how long a commit that was taken and not acknowledged waits before
// somebody else is given it. Work that takes longer says so with Extend.
const AckWait = 30 * time.Second

// Work is one commit (or submission) that was taken from the queue.
type Work struct {
	Entry
	Header nats.Header
	msg    Taken
}

// Taken is a message that a queue gave out; every jetstream.Msg is one.
type Taken interface {
	Ack() error
	InProgress() error
	NakWithDelay(time.Duration) error
}

// NewWork is the work of an entry that a queue gave out as m.
func NewWork(e Entry, h nats.Header, m Taken) Work { return Work{Entry: e, Header: h, msg: m} }

// Ack says that what this commit brought is done.
func (w Work) Ack() {
	if w.msg != nil { // what Feed gives is not acknowledged
		_ = w.msg.Ack() // a lost ack is a redelivery, which finds the work done
	}
}

// Extend says that it is still being worked on.
func (w Work) Extend() {
	if w.msg != nil {
		_ = w.msg.InProgress()
	}
}

// Again asks for it again, after a while.
func (w Work) Again(after time.Duration) { _ = w.msg.NakWithDelay(after) }

// Consume calls handle for every commit of the log, shared by name among all
// processes that consume under it: the log is the queue. A commit comes again
// until it is acknowledged. It blocks until ctx ends. Nothing may rest on where
// the queue's position is: it goes backwards in a power cut.
func (l *Log) Consume(ctx context.Context, name string, handle func(Work)) error {
	return l.consume(ctx, Name, pattern, name, handle)
}

// Submissions is Consume for the queue of submissions; an acknowledged one is gone.
func (l *Log) Submissions(ctx context.Context, handle func(Work)) error {
	return l.consume(ctx, Requests, SubmitSubject, "orchestrator", handle)
}

// RequestsFingerprint is the identity of the queue of submissions, from which
// the IDs of submissions without one are derived.
func (l *Log) RequestsFingerprint(ctx context.Context) (string, error) {
	s, err := l.js.Stream(ctx, Requests)
	if err != nil {
		return "", fmt.Errorf("look up stream %s: %w", Requests, err)
	}
	return s.CachedInfo().Config.Metadata[incarnation], nil
}

func (l *Log) consume(ctx context.Context, stream, filter, name string, handle func(Work)) error {
	c, err := l.durableConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable: name, FilterSubject: filter,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: AckWait,
		MaxDeliver: -1, MaxAckPending: 20_000,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("consume %s: %w", stream, err)
	}
	consuming, err := c.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			return
		}
		handle(NewWork(l.taken(stream, m, meta), m.Headers(), m))
	}, jetstream.PullMaxMessages(2*batchMax))
	if err != nil {
		return fmt.Errorf("consume %s: %w", stream, err)
	}
	<-ctx.Done()
	consuming.Stop()
	<-consuming.Closed()
	return nil
}

// taken is a message of one of the queues; only those of the log tell how far it
// is on disk.
func (l *Log) taken(stream string, m jetstream.Msg, meta *jetstream.MsgMetadata) Entry {
	e := EntryOf(m.Subject(), meta.Sequence.Stream, meta.Timestamp.UTC(), m.Headers(), m.Data())
	if stream == Name {
		l.gate.wrote(e.Sequence)
	}
	return e
}

// durableConsumer looks the consumer up and creates it only if it is not there,
// or differs: creating with the same configuration rewrites its file, and a
// power cut at that moment can lose it.
func (l *Log) durableConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	for try := 0; ; try++ {
		c, err := l.js.Consumer(ctx, stream, want.Durable)
		if err == nil {
			have := c.CachedInfo().Config
			if have.AckWait == want.AckWait && have.MaxAckPending == want.MaxAckPending &&
				have.MaxDeliver == want.MaxDeliver && have.FilterSubject == want.FilterSubject {
				return c, nil
			}
		}
		if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) {
			c, err = l.js.CreateOrUpdateConsumer(ctx, stream, want)
		}
		if err == nil || ctx.Err() != nil || try == 8 {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(backoff(try)):
		}
	}
}
