package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
)

// batchMax bounds what one call of a follower's handle is given.
const batchMax = 512

// Follow calls handle with every durable commit whose sequence is above after,
// in stream order, in batches of whatever has arrived (1 to 512, never waiting
// to fill one). It blocks until ctx ends, and then returns nil, or until handle
// fails, and then returns that error.
func (l *Log) Follow(ctx context.Context, after uint64, handle func([]Entry) error) error {
	if l.tail != nil {
		return l.followTail(ctx, after, true, handle)
	}
	return l.read(ctx, after, pattern, true, handle, nil)
}

// Watch is Follow for the commits of one generation.
func (l *Log) Watch(ctx context.Context, id events.ID, after uint64, handle func([]Entry) error) error {
	return l.read(ctx, after, Subject(id), true, handle, nil)
}

// Scan is Follow up to and including a sequence; then it returns nil. It is how
// a rebuild and a verification read the log.
func (l *Log) Scan(ctx context.Context, after, upto uint64, handle func([]Entry) error) error {
	if upto <= after {
		return nil
	}
	// The message at upto may be missing only if the log is damaged; a scan that
	// waited for it would never end, so a missing one ends it with an error.
	if _, err := l.at(ctx, upto, false); err != nil {
		return fmt.Errorf("scan log to %d: %w", upto, err)
	}
	whole := false
	err := l.read(ctx, after, pattern, true, func(batch []Entry) error {
		n := len(batch)
		for n > 0 && batch[n-1].Sequence > upto {
			n--
		}
		whole = n < len(batch) || batch[n-1].Sequence == upto
		if n == 0 {
			return nil
		}
		return handle(batch[:n])
	}, func() bool { return whole })
	if err == nil && !whole {
		return ctx.Err()
	}
	return err
}

// read is Follow and Feed from the server: until ctx ends, handle fails, or enough,
// which is asked after each batch, says so. A nil enough never does.
func (l *Log) read(ctx context.Context, after uint64, filter string, durable bool, handle func([]Entry) error, enough func() bool) error {
	c, err := l.consumer(ctx, after, filter)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("follow log from %d: %w", after, err)
	}
	arrived := make(chan jetstream.Msg, batchMax)
	left := make(chan struct{}) // closed when nobody takes what arrives any more
	consuming, err := c.Consume(func(m jetstream.Msg) {
		select {
		case arrived <- m:
		case <-left:
		}
	}, jetstream.PullMaxMessages(2*batchMax))
	if err != nil {
		return fmt.Errorf("follow log from %d: %w", after, err)
	}
	defer func() {
		close(left) // or the consumer, with more than arrived holds, would not end
		consuming.Stop()
		<-consuming.Closed()
		l.forget(c)
	}()
	batch := make([]Entry, 0, batchMax)
	for {
		batch = batch[:0]
		select {
		case <-ctx.Done():
			return nil
		case m := <-arrived:
			batch = append(batch, l.received(m))
		}
		for more := true; more && len(batch) < batchMax; {
			select {
			case m := <-arrived:
				batch = append(batch, l.received(m))
			default:
				more = false
			}
		}
		if err := Hand(ctx, l.Await, batch, durable, handle); err != nil {
			return unlessEnded(ctx, err)
		}
		if enough != nil && enough() {
			return nil
		}
	}
}

// unlessEnded is err, or nil if that only says that ctx has ended.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Hand gives handle a batch, if it is to be durable once it is on disk. Its error
// is that of await, or of handle.
func Hand(ctx context.Context, await func(context.Context, uint64) error, batch []Entry, durable bool, handle func([]Entry) error) error {
	if durable {
		if err := await(ctx, batch[len(batch)-1].Sequence); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
	}
	return handle(batch)
}

// forget removes a follower's consumer, which the server would otherwise keep for
// a while. If that fails, it does.
func (l *Log) forget(c jetstream.Consumer) {
	if info := c.CachedInfo(); info != nil && !l.nc.IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = l.js.DeleteConsumer(ctx, Name, info.Name)
	}
}

// consumer makes an ordered consumer: ephemeral, in memory, restarted by the
// client after a gap. It waits out a log that is not available yet.
func (l *Log) consumer(ctx context.Context, after uint64, filter string) (jetstream.Consumer, error) {
	for try := 0; ; try++ {
		cfg := jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:   after + 1,

			InactiveThreshold: 30 * time.Second, // of a process that was killed
		}
		if filter != pattern { // that is everything there is, and without a filter the server need not look for it
			cfg.FilterSubjects = []string{filter}
		}
		c, err := l.js.OrderedConsumer(ctx, Name, cfg)
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

func (l *Log) received(m jetstream.Msg) Entry {
	meta, err := m.Metadata()
	if err != nil { // only a message that no consumer delivered has none
		panic(fmt.Sprintf("stream: message without metadata: %v", err))
	}
	return l.entry(m.Subject(), meta.Sequence.Stream, meta.Timestamp.UTC(), m.Headers(), m.Data())
}
