package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider"
)

// Config is what an Orchestrator works with. Providers and Log must be set.
type Config struct {
	Log       *stream.Log
	Bucket    *blob.Bucket
	Fetcher   *blob.Fetcher
	Providers []Instance // the first is used by requests that name none
	Logger    *slog.Logger

	// Webhook is the address that a provider is told for a generation; nil: no
	// provider can reach us, and polling is the normal way.
	Webhook func(provider string, id events.ID) string

	// Alone says that no other orchestrator can be running on this log (the data
	// directory is locked), so that an earlier life's claims are known to be dead.
	Alone bool

	// Loose has requesters answered before what they are told is on disk: a power
	// cut may take it back. Calls to providers wait all the same.
	Loose bool

	PollAfter time.Duration // see Rules

	MaxOpen    int          // open generations at which creates are refused, and by up to MaxCreates more; 0 = DefaultMaxOpen
	MaxCreates int          // creates that are worked on at a time, however they came; others are refused; 0 = DefaultMaxCreates
	MaxTries   int          // of one slot; 0 = 2
	Fetches    int          // downloads at a time; 0 = 32
	Room       func() error // why nothing more may be written; nil = there is room. Asked before each create.
}

// Instance is one configured provider.
type Instance struct {
	Name string
	provider.Provider
	Limits Limits
}

// Orchestrator makes things happen. Run must be running for anything to.
type Orchestrator struct {
	cfg     Config
	log     *slog.Logger
	life    string
	ledger  ledger
	fetcher fetcher
	table   *table
	lanes   map[string]*lane
	goes    func(func()) // runs it beside its caller, as one of wg
	Metrics *Metrics

	background context.Context // of I/O under way; set by Run before anything starts
	wg         sync.WaitGroup  // goroutines that advance entries and do their I/O
	creating   chan struct{}   // places for creates
	workers    chan struct{}   // places for those that advance
	downloads  chan struct{}   // places for downloads
	carrying   chan struct{}   // places for create calls that hold files in memory
	position   atomic.Uint64   // last commit taken from the queue
	back       atomic.Int64    // when the log answered again after it was away, in Unix nanoseconds
	ready      atomic.Bool
	answering  atomic.Bool // Serve runs
	recovered  time.Time   // when this life began to act; set by Run before anything starts
	noted      uint64      // the horizon that this life noted last; owned by keepHorizon
	scanned    uint64      // every commit up to it was read before; set likewise
	requests   string      // fingerprint of the queue of submissions; set likewise
}

// New prepares an orchestrator. It panics if cfg lacks what must be set.
func New(cfg Config) *Orchestrator {
	o := assemble(cfg)
	o.Metrics = newMetrics(o)
	return o
}

// assemble is New without the metrics, which cost more than all else.
func assemble(cfg Config) *Orchestrator {
	if cfg.Log == nil || len(cfg.Providers) == 0 {
		panic("orchestrator: Config without Log or Providers")
	}
	if cfg.MaxOpen == 0 {
		cfg.MaxOpen = DefaultMaxOpen
	}
	if cfg.MaxCreates == 0 {
		cfg.MaxCreates = DefaultMaxCreates
	}
	if cfg.MaxTries == 0 {
		cfg.MaxTries = 2
	}
	cfg.MaxTries = min(cfg.MaxTries, events.MaxTries)
	if cfg.Fetches == 0 {
		cfg.Fetches = 32
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	o := &Orchestrator{
		cfg: cfg, log: cfg.Logger, life: uuid.NewString(),
		lanes: map[string]*lane{}, creating: make(chan struct{}, cfg.MaxCreates),
		workers: make(chan struct{}, 128), downloads: make(chan struct{}, cfg.Fetches), carrying: make(chan struct{}, maxCarrying),
	}
	o.ledger, o.fetcher, o.goes = cfg.Log, cfg.Fetcher, o.wg.Go
	o.table = newTable(Rules{Life: o.life, Webhooks: cfg.Webhook != nil, MaxTries: cfg.MaxTries, PollAfter: cfg.PollAfter})
	for _, p := range cfg.Providers {
		o.lanes[p.Name] = newLane(p.Name, p.Provider, p.Limits)
	}
	return o
}

// Run works until ctx ends; then it waits for what is under way, and returns.
// What it leaves undone is found in the log by the next life.
func (o *Orchestrator) Run(ctx context.Context) error {
	// I/O under way at the end is given a moment to finish and be noted: a create
	// call that is cut off costs the next life a question.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	o.background = background
	defer o.wg.Wait()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(5*time.Second, cancel) })()

	if o.cfg.Log.Queued() {
		var err error
		if o.requests, err = o.cfg.Log.RequestsFingerprint(ctx); err != nil {
			return fmt.Errorf("run orchestrator: %w", err)
		}
	}
	if err := fault.Around("recover", func() error { return o.recover(ctx) }); err != nil {
		return fmt.Errorf("run orchestrator: %w", err)
	}
	o.ready.Store(true)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, 8)
	var loops sync.WaitGroup
	loop := func(run func(context.Context) error) {
		loops.Go(func() {
			if err := run(ctx); err != nil {
				failed <- err
				stop()
			}
		})
	}
	loop(func(ctx context.Context) error { o.table.run(ctx, o.due); return nil })
	if !o.cfg.Alone {
		loop(o.follow)
		loop(func(ctx context.Context) error { return o.cfg.Log.Checks(ctx, o.checked) })
	}
	for _, l := range o.lanes {
		loop(func(ctx context.Context) error { l.run(ctx, o.place); return nil })
	}
	loop(o.consume)
	if o.cfg.Log.Queued() {
		loop(func(ctx context.Context) error { return o.cfg.Log.Submissions(ctx, o.submitted) })
	}
	loop(o.keepHorizon)
	loop(o.extend)
	loops.Wait()
	for _, e := range o.table.all() { // what is known is noted, or the next life would have to ask
		e.mu.Lock()
		waits := !e.until.IsZero()
		e.until = time.Time{}
		e.mu.Unlock()
		if waits {
			o.activate(e)
		}
	}
	close(failed)
	return <-failed
}

// recover rebuilds the open table from the log and looks at every entry: the
// queue's own position is not to be trusted after a power cut.
func (o *Orchestrator) recover(ctx context.Context) error {
	after, err := o.ledger.Horizon(ctx)
	if err != nil {
		return err
	}
	upto, err := o.ledger.Refresh(ctx)
	if err != nil {
		return err
	}
	err = o.ledger.Scan(ctx, after, upto, func(batch []stream.Entry) error {
		for _, e := range batch {
			o.see(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	o.recovered, o.scanned = time.Now(), upto
	o.position.Store(upto)
	for _, e := range o.table.eldest() {
		if o.cfg.Alone {
			o.activate(e)
		} else {
			o.learn(e)
		}
	}
	return nil
}

// consume takes commits as they are appended: all of them if no other process
// does, or this one's share.
func (o *Orchestrator) consume(ctx context.Context) error {
	if o.cfg.Alone {
		return o.cfg.Log.Feed(ctx, o.scanned, func(e stream.Entry) { o.take(stream.Work{Entry: e}) })
	}
	return o.cfg.Log.Consume(ctx, "orchestrator", o.take)
}

// see leaves a commit in its entry's mailbox; nil if nothing is to be done about it.
func (o *Orchestrator) see(se stream.Entry) *entry {
	if se.ID == "" {
		return nil // no generation of ours; verify reports the subject
	}
	if se.Completes() { // nothing follows, so there is no need to fold it
		if e := o.table.find(se.ID); e != nil {
			o.retire(e)
		}
		return nil
	}
	e := o.table.entry(se.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone || o.cfg.Alone && se.Sequence <= e.shownAt { // most are our own: folded, and acted on
		return nil
	}
	if e.first == 0 {
		e.first = se.Sequence
	}
	e.arrived = append(e.arrived, se)
	return e
}

// park keeps a commit that cannot be read apart, for a person. Others go on.
func (o *Orchestrator) park(se stream.Entry, cause error) {
	o.log.Error("commit parked", "generation", se.ID, "sequence", se.Sequence, "error", cause)
	if _, err := o.cfg.Log.Park(o.background, "commit", stream.Name, se.Sequence, cause.Error(), se.Body); err != nil {
		o.log.Error("commit not parked", "generation", se.ID, "sequence", se.Sequence, "error", err)
	}
}

// take is called with every commit of the queue, in order.
func (o *Orchestrator) take(w stream.Work) {
	if o.cfg.Alone {
		o.position.Store(max(w.Sequence, o.position.Load()))
	}
	if w.Sequence <= o.scanned && o.table.find(w.ID) == nil {
		w.Ack() // it came again, and its generation is not open any more
		return
	}
	e := o.see(w.Entry)
	if e == nil {
		w.Ack()
		return
	}
	e.mu.Lock()
	busy := e.active
	if !o.cfg.Alone { // else there is nothing to acknowledge
		e.works = append(e.works, w)
	}
	e.mu.Unlock()
	if busy && o.cfg.Alone {
		return // its owner sees what has arrived before he lets go, and knows whether it is his own
	}
	o.activate(e)
}

// activate has a goroutine own e and act on it, if none does.
func (o *Orchestrator) activate(e *entry) { o.wake(e, true) }

// learn is activate for news that another process acts on: the fold is brought up
// to date, and a time is set at which to see whether it did.
func (o *Orchestrator) learn(e *entry) { o.wake(e, false) }

func (o *Orchestrator) wake(e *entry, act bool) {
	e.mu.Lock()
	e.dirty, e.act = true, e.act || act
	start := !e.active
	e.active = true
	e.mu.Unlock()
	if start {
		o.goes(func() {
			o.workers <- struct{}{}
			defer func() { <-o.workers }()
			o.advance(e)
		})
	}
}

// place is activate for an entry whose turn has come in its lane.
func (o *Orchestrator) place(e *entry) {
	e.mu.Lock()
	e.lined, e.placed = false, true
	e.mu.Unlock()
	o.activate(e)
}

// retire takes a generation out of the table: it is completed, or never was.
func (o *Orchestrator) retire(e *entry) {
	o.table.drop(e)
	e.mu.Lock()
	e.gone = true
	works := e.works
	e.works, e.arrived = nil, nil
	e.mu.Unlock()
	for _, w := range works {
		w.Ack()
	}
}

// extend tells the queue, now and then, which commits are still being worked on.
func (o *Orchestrator) extend(ctx context.Context) error {
	ticker := time.NewTicker(stream.AckWait / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		o.extendAll()
	}
}

func (o *Orchestrator) extendAll() {
	for _, e := range o.table.all() {
		e.mu.Lock()
		works := slices.Clone(e.works)
		e.mu.Unlock()
		for _, w := range works {
			w.Extend()
		}
	}
}

// Ready reports why no generation would make progress now, or nil.
func (o *Orchestrator) Ready() error {
	if !o.ready.Load() {
		return errors.New("the open generations are still being read from the log")
	}
	for _, p := range o.cfg.Providers {
		if t := o.lanes[p.Name].Trouble(); t != nil {
			return fmt.Errorf("provider %s is not being called: %s: %s", p.Name, t.Code, t.Message)
		}
	}
	return nil
}

// Recovered says whether the open table has been read from the log.
func (o *Orchestrator) Recovered() bool { return o.ready.Load() }

// OpenCount is how many generations are open, as far as this process knows.
func (o *Orchestrator) OpenCount() int { return o.table.len() }

// Open is the newest 200 open generations that this process knows, oldest first.
func (o *Orchestrator) Open() []events.View {
	var open []events.Generation
	var newest uint64
	for _, e := range o.table.all() {
		e.mu.Lock()
		if e.shown.Requested() && !e.gone {
			open = append(open, e.shown)
			newest = max(newest, e.shownAt)
		}
		e.mu.Unlock()
	}
	if err := o.cfg.Log.Await(o.background, newest); err != nil { // readers are shown what is on disk
		return nil
	}
	slices.SortFunc(open, func(a, b events.Generation) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(string(a.ID), string(b.ID)))
	})
	views := []events.View{}
	for _, g := range open[max(0, len(open)-200):] {
		views = append(views, events.Public(g))
	}
	return views
}
