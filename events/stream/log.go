package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
)

// Config says how the log is opened.
type Config struct {
	Replicas int  // of the streams when they are created; 0 = 1
	Create   bool // create what is missing; false: a missing stream is ErrMissing

	// Own says that the server is this process's own, and nobody else appends. Then
	// the orchestrator takes submissions itself, and they need no queue.
	Own bool

	// Sync brings everything that the server has written to the log to disk, SyncAll
	// everything else too. nil: the server does so itself before it acknowledges. They
	// may be set with Own only.
	Sync, SyncAll func() error

	// Stored reads the message at a sequence out of the server's files; false: the
	// server has to be asked. nil: it always is. With Own only.
	Stored func(sequence uint64) (Entry, bool)

	// Full says, wrapping ErrFull, why the server takes no append just now: a full
	// disk makes it give no answer at all. nil: it answers for itself.
	Full func() error
}

// Log is the open log. Its methods may be called concurrently.
type Log struct {
	nc          *nats.Conn
	js          jetstream.JetStream
	stream      jetstream.Stream
	single      bool   // one replica: direct gets are the leader's
	fingerprint string // identity of this very stream
	gate        *gate
	syncAll     func() error // nil: the server syncs
	full        func() error // nil: the server says so itself
	stored      func(sequence uint64) (Entry, bool)
	queued      bool   // submissions have a queue of their own
	tally       tally  // of the appends
	heads       *heads // of open generations; nil if others append too
	tail        *tail  // of the log; likewise
}

// Open finds the streams on the connection's account, or creates them if cfg
// says so. It changes nothing that exists: updating a stream rewrites its
// metadata, which a power cut at that moment can destroy. Errors wrap ErrMissing
// or ErrDrift.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Log, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{nc: nc, js: js, gate: newGate(cfg.Sync), syncAll: cfg.SyncAll, full: cfg.Full, stored: cfg.Stored, queued: !cfg.Own}
	for _, want := range streams(max(cfg.Replicas, 1)) {
		if want.Name == Requests && !l.queued {
			continue
		}
		s, err := l.ensure(ctx, want, cfg.Create)
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		if want.Name == Name {
			l.stream = s
		}
	}
	info := l.stream.CachedInfo()
	l.single = info.Config.Replicas == 1
	l.fingerprint = info.Config.Metadata[incarnation]
	if l.fingerprint == "" {
		l.fingerprint = strconv.FormatInt(info.Created.UnixNano(), 36)
	}
	if cfg.Own {
		l.heads, l.tail = newHeads(), newTail(info.State.LastSeq)
	}
	// What was written before is on disk from here on, and so are the streams
	// themselves: a sync of the log's changed files would not bring new ones back.
	l.gate.wrote(info.State.LastSeq)
	if err := l.Barrier(ctx); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, l.Await(ctx, info.State.LastSeq)
}

// ensure looks a stream up first and creates it only if it is not there.
func (l *Log) ensure(ctx context.Context, want jetstream.StreamConfig, create bool) (jetstream.Stream, error) {
	s, err := l.js.Stream(ctx, want.Name)
	switch {
	case err == nil:
		return s, drift(s.CachedInfo().Config, want)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("look up stream %s: %w", want.Name, err)
	case !create:
		return nil, fmt.Errorf("%w: %s: restore it from a backup, or start with a new data directory", ErrMissing, want.Name)
	}
	want.Metadata = map[string]string{incarnation: uuid.NewString()}
	s, err = l.js.CreateStream(ctx, want)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was first
		return l.ensure(ctx, want, false)
	}
	if err != nil {
		return nil, fmt.Errorf("create stream %s: %w", want.Name, err)
	}
	return s, nil
}

// Fingerprint is the identity of this very stream. A stream that was deleted
// and created again has another, whatever its name and sequences.
func (l *Log) Fingerprint() string { return l.fingerprint }

// Durable is the durable sequence: every commit up to it is on disk, and what
// lies above it may be handed out again, as another commit, after a power cut.
func (l *Log) Durable() uint64 { return l.gate.durable.Load() }

// Await returns once every commit up to the sequence is on disk. Whatever leaves
// the process (an answer, a reply, a provider call, a row) calls it first, with
// the sequence that it rests on. The sequence is one that Append returned, or that
// was read. The error wraps ErrSync, or is that of ctx.
func (l *Log) Await(ctx context.Context, sequence uint64) error {
	if err := l.gate.await(ctx, sequence); err != nil {
		return fmt.Errorf("await sequence %d: %w", sequence, err)
	}
	return nil
}

// Barrier is Await for what was written elsewhere than in the log: new streams,
// and messages of PARKED. It costs more, and is seldom needed.
func (l *Log) Barrier(context.Context) error {
	if l.syncAll == nil {
		return nil
	}
	if err := l.syncAll(); err != nil {
		return l.gate.fail(err)
	}
	return nil
}

// Queued says whether submissions wait in a queue of their own, Submissions.
func (l *Log) Queued() bool { return l.queued }

// Broken is closed when a sync has failed: nothing passes any more, and the
// process should end.
func (l *Log) Broken() <-chan struct{} { return l.gate.barrier.Broken() }

// Err is why Broken is closed, wrapping ErrSync; nil while it is not.
func (l *Log) Err() error { return l.gate.barrier.Err() }

// Sync returns once a sync of the log has ended that began after the call. It is
// for whoever has the log's sync cover more than the log (Config.Sync): what he
// wrote before is on disk then too. The error is Await's.
func (l *Log) Sync(ctx context.Context) error { return l.gate.barrier.Wait(ctx) }

// Refresh reads the end of the log from the stream, and returns once it is on disk.
// The error wraps ErrUnavailable: of a cluster without a majority too, of which the
// servers that are left answer with what they have (nats-server, jsStreamInfoRequest).
func (l *Log) Refresh(ctx context.Context) (uint64, error) {
	once, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := l.stream.Info(once)
	if err != nil {
		return 0, fmt.Errorf("read end of log: %w: %w", ErrUnavailable, err)
	}
	if info.Cluster != nil && info.Cluster.Name != "" && info.Cluster.Leader == "" {
		return 0, fmt.Errorf("read end of log: %w: the stream has no leader", ErrUnavailable)
	}
	return info.State.LastSeq, l.Await(ctx, info.State.LastSeq)
}

// Reopened checks, after the log's own server was started again, that the log holds
// everything that it ever acknowledged. The error wraps ErrSync: what is missing
// was promised to somebody.
func (l *Log) Reopened(ctx context.Context) error {
	written := l.gate.written.Load()
	for try := 0; ; try++ {
		end, err := l.Refresh(ctx)
		switch {
		case err == nil && end < written:
			return l.gate.fail(fmt.Errorf("the log ends at %d, and %d was written", end, written))
		case err == nil, errors.Is(err, ErrSync), try == 8:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff(try)): // the connection is on its way back
		}
	}
}

// Size is how many commits the log holds, and their bytes on disk.
func (l *Log) Size(ctx context.Context) (commits, bytes uint64, err error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("read size of log: %w: %w", ErrUnavailable, err)
	}
	return info.State.Msgs, info.State.Bytes, nil
}

// Park keeps a message that could not be processed, with the reason, for a
// person to look at and retry. kind is "commit" or "submit".
//
// It returns the place among what is parked.
func (l *Log) Park(ctx context.Context, kind string, from string, sequence uint64, reason string, body []byte) (uint64, error) {
	m := nats.NewMsg(parkedSubject + kind)
	m.Header.Set(headerReason, events.Cut(reason, events.MaxNote))
	m.Header.Set(headerFrom, from+" "+strconv.FormatUint(sequence, 10))
	m.Data = body
	var opts []jetstream.PublishOpt
	if sequence > 0 { // a redelivery parks the same message: once within the duplicate window is enough
		opts = append(opts, jetstream.WithMsgID(from+"/"+strconv.FormatUint(sequence, 10)))
	}
	ack, err := l.js.PublishMsg(ctx, m, opts...)
	if err == nil {
		err = l.Barrier(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("park %s %d: %w", from, sequence, err)
	}
	return ack.Sequence, nil
}

// Announce publishes that a generation is completed, once its completing commit
// is on disk. Nobody keeps the message: it reaches whoever listens, at most once.
func (l *Log) Announce(ctx context.Context, id events.ID, sequence uint64) error {
	if err := l.Await(ctx, sequence); err != nil {
		return fmt.Errorf("announce generation=%s: %w", id, err)
	}
	if err := l.nc.Publish(completedSubject+string(id), []byte(`{"id":"`+string(id)+`","position":`+strconv.FormatUint(sequence, 10)+`}`)); err != nil {
		return fmt.Errorf("announce generation=%s: %w", id, err)
	}
	return nil
}

// Conn is the connection that the log is read and written over.
func (l *Log) Conn() *nats.Conn { return l.nc }

// ParkedCount is how many messages are parked.
func (l *Log) ParkedCount(ctx context.Context) (uint64, error) {
	s, err := l.js.Stream(ctx, Parked)
	if err != nil {
		return 0, fmt.Errorf("read parked: %w", err)
	}
	return s.CachedInfo().State.Msgs, nil
}

// requestTimeout bounds one exchange with the stream; callers retry within their own time.
const requestTimeout = 5 * time.Second
