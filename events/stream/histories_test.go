package stream_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

func TestMain(m *testing.M) {
	natsdtest.BeNode()
	os.Exit(m.Run())
}

// register is what the log promises to be for one generation: a value that is
// replaced only by whoever names the one before.
type register struct {
	sequence uint64
	digest   string // of all commits up to it
}

// asked is an operation on it: a read, or an append of what has the digest.
type asked struct {
	read   bool
	after  uint64
	digest string
}

// answered is what came of it: what was read, or where it was appended.
type answered struct {
	register
	refused bool
}

// registerModel is strict, or lets reads show what was: at gives, for that, the
// sequence of each value that there ever was.
func registerModel(at map[string]uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return register{} },
		Step: func(was, ask, answer any) (bool, any) {
			now, a, came := was.(register), ask.(asked), answer.(answered)
			switch {
			case a.read && at != nil:
				return came.sequence == at[came.digest] && came.sequence <= now.sequence, now
			case a.read:
				return now == came.register, now
			case came.refused:
				return now.sequence != a.after, now
			}
			return now.sequence == a.after, came.register
		},
		DescribeOperation: func(ask, answer any) string { return fmt.Sprintf("%+v -> %+v", ask, answer) },
	}
}

// history is what several clients did to one generation at a time.
type history struct {
	id  events.ID
	mu  sync.Mutex
	ops []porcupine.Operation // with answers
	odd []porcupine.Operation // appends of which nobody knows what became
}

// What a history can be.
const (
	possible   = iota // there is an order in which everything could have happened, one after the other
	old               // there is one if reads may have shown what was before
	impossible        // there is none
)

// judge is the verdict. The log's own word on what was unknown comes from the end.
func (h *history) judge(t *testing.T, log func(int) *stream.Log, now func() int64) int {
	ops := h.ops
	end := register{}
	at := map[string]uint64{}
	entries, err := log(0).History(t.Context(), h.id)
	for errors.Is(err, stream.ErrUnavailable) && t.Context().Err() == nil { // it was closed meanwhile
		entries, err = log(0).History(t.Context(), h.id)
	}
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("read generation=%s: %v", h.id, err)
		return impossible
	}
	for _, e := range entries {
		at[e.Digest] = e.Sequence
		end = register{e.Sequence, e.Digest}
	}
	last := now()
	for _, op := range h.odd {
		if sequence, ok := at[op.Input.(asked).digest]; ok {
			op.Output, op.Return = answered{register: register{sequence, op.Input.(asked).digest}}, last
			ops = append(ops, op)
		}
	}
	ops = append(ops, porcupine.Operation{Input: asked{read: true}, Output: answered{register: end}, Call: last + 1, Return: last + 2})
	for verdict, model := range []porcupine.Model{registerModel(nil), registerModel(at)} {
		switch porcupine.CheckOperationsTimeout(model, ops, time.Minute) {
		case porcupine.Ok:
			return verdict
		case porcupine.Unknown:
			t.Errorf("generation=%s: its history of %d operations cannot be judged in a minute", h.id, len(ops))
		}
	}
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range ops {
		t.Logf("%d %.4f..%.4f %+v -> %+v", op.ClientId, float64(op.Call)/1e9, float64(op.Return)/1e9, op.Input, op.Output)
	}
	return impossible
}

// historian has clients work on generations, and writes down what each was told.
type historian struct {
	t     *testing.T
	began time.Time
	// log is what a client works with just now.
	log func(client int) *stream.Log
	// patience is how long an operation is waited for, at least and at most.
	patience [2]time.Duration
	each     int // operations of a client on a generation

	// What the negative controls do otherwise.
	head   func(context.Context, *stream.Log, events.ID) (stream.Head, error)
	append func(context.Context, *stream.Log, events.ID, stream.Head, time.Time, events.Event) (stream.Head, error)

	operations, unknown, refused, old, broken atomic.Int64
}

// historyClients are at a generation at a time.
const historyClients = 4

func newHistorian(t *testing.T, log func(int) *stream.Log) *historian {
	return &historian{
		t: t, began: time.Now(), log: log, each: 60, patience: [2]time.Duration{time.Minute, time.Minute},
		head: func(ctx context.Context, l *stream.Log, id events.ID) (stream.Head, error) {
			_, head, err := l.Load(ctx, id)
			return head, err
		},
		append: func(ctx context.Context, l *stream.Log, id events.ID, after stream.Head, at time.Time, ev events.Event) (stream.Head, error) {
			_, head, err := l.Append(ctx, id, after, at, ev)
			return head, err
		},
	}
}

func (h *historian) now() int64 { return int64(time.Since(h.began)) }

// write has the clients work on a new generation until each has done its part or
// ctx ends.
func (h *historian) write(ctx context.Context, r *rand.Rand) *history {
	made := &history{id: streamtest.NewID()}
	var clients sync.WaitGroup
	for client := range historyClients {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		clients.Go(func() {
			var head stream.Head
			for n := 0; n < h.each && ctx.Err() == nil; n++ {
				if r.IntN(100) < 45 {
					head = h.read(made, client, head, r)
				} else {
					head = h.commit(made, client, n, head, r)
				}
			}
		})
	}
	clients.Wait()
	h.operations.Add(int64(len(made.ops) + len(made.odd)))
	return made
}

func (h *historian) wait(r *rand.Rand) (context.Context, context.CancelFunc) {
	spread := h.patience[1] - h.patience[0]
	return context.WithTimeout(h.t.Context(), h.patience[0]+time.Duration(r.Int64N(int64(spread)+1)))
}

// read is one read. One that fails has told nobody anything.
func (h *historian) read(to *history, client int, was stream.Head, r *rand.Rand) stream.Head {
	ctx, cancel := h.wait(r)
	defer cancel()
	op := porcupine.Operation{ClientId: client, Input: asked{read: true}, Call: h.now()}
	head, err := h.head(ctx, h.log(client), to.id)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		return was
	}
	op.Output, op.Return = answered{register: register{head.Sequence, head.Digest}}, h.now()
	to.add(&to.ops, op)
	return head
}

// commit is one append after the head that the client knows, which may be an old one.
func (h *historian) commit(to *history, client, n int, after stream.Head, r *rand.Rand) stream.Head {
	ctx, cancel := h.wait(r)
	defer cancel()
	at := events.Now()
	// One that completes is read back without those before it: a read is one operation.
	ev := events.Completed{Error: &events.Error{Code: fmt.Sprintf("c%d.%d", client, n)}, Generation: events.Generation{ID: to.id}}
	_, next, err := stream.Message(to.id, after, at, ev)
	if err != nil {
		h.t.Error(err)
		return after
	}
	op := porcupine.Operation{ClientId: client, Input: asked{after: after.Sequence, digest: next.Digest}, Call: h.now()}
	head, err := h.append(ctx, h.log(client), to.id, after, at, ev)
	op.Return = h.now()
	switch {
	case err == nil:
		op.Output = answered{register: register{head.Sequence, head.Digest}}
		to.add(&to.ops, op)
		return head
	case errors.Is(err, stream.ErrConflict):
		h.refused.Add(1)
		op.Output = answered{refused: true}
		to.add(&to.ops, op)
	case errors.Is(err, stream.ErrUnavailable), errors.Is(err, stream.ErrSync):
		h.unknown.Add(1)
		to.add(&to.odd, op)
	default:
		h.t.Errorf("append to generation=%s: %v", to.id, err)
	}
	return after
}

func (h *history) add(to *[]porcupine.Operation, op porcupine.Operation) {
	h.mu.Lock()
	*to = append(*to, op)
	h.mu.Unlock()
}

// check judges a history.
func (h *historian) check(made *history, log func(int) *stream.Log) {
	switch made.judge(h.t, log, h.now) {
	case old:
		h.old.Add(1)
	case impossible:
		h.broken.Add(1)
	}
}

// TestHistories has many clients append to and read from the same generations, and
// looks for an order in which all of it could have happened one after the other:
// on an embedded node that is started again in the middle, and on a cluster in
// trouble. A leader that is cut off does not know for a while that it leads no more,
// and answers its own clients with what it has: there reads may show what was.
// Appends never rest on it. Case 2n is a node, case 2n+1 a cluster in the nth kind of trouble.
//
// GENSTREAM_FOR=10m GENSTREAM_FROM=0 go test -run 'TestHistories$' -v -timeout 1h ./events/stream
func TestHistories(t *testing.T) {
	tried := prooftest.Begin(t, "histories")
	most := 2
	if tried.Long() {
		most = math.MaxInt
	}
	for n := range tried.Cases(most) {
		name, run := "embedded", embedded
		if n%2 == 1 {
			name, run = natsdtest.Troubles()[n/2%len(natsdtest.Troubles())].Name, clustered
		}
		t.Run(fmt.Sprint(n, " ", name), func(t *testing.T) {
			h, made := run(t, n)
			t.Logf("%d operations on %d generations, %d refused, %d unknown, %d with reads of what was", h.operations.Load(), made, h.refused.Load(), h.unknown.Load(), h.old.Load())
			if n%2 == 0 { // where there is one node, nothing is old
				h.broken.Add(h.old.Swap(0))
			}
			for range h.broken.Load() {
				tried.Violated(n)
			}
			if h.broken.Load() > 0 {
				t.Errorf("%d histories cannot have happened", h.broken.Load())
			}
			tried.Figure("operations", int(h.operations.Load()))
			tried.Figure("generations", made)
			tried.Figure("refused", int(h.refused.Load()))
			tried.Figure("unknown", int(h.unknown.Load()))
			tried.Figure("old", int(h.old.Load()))
		})
	}
}

// embedded is one node of the kind that `genstream up` has, which is closed and
// started again under the clients.
func embedded(t *testing.T, n int) (*historian, int) {
	most := 420
	switch {
	case race: // which looks at everything and is slow
		most /= 6
	case os.Getenv("GENSTREAM_FOR") != "":
		most *= 3
	}
	dir, err := os.MkdirTemp("/dev/shm", "genstream-histories-*") // what it shows does not depend on how long a sync takes
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var door sync.RWMutex // closed while there is no server
	var s *natsd.Server
	var l *stream.Log
	start := func() {
		var err error
		if s, err = natsd.Start(natsd.Config{Dir: dir, MaxStore: 4 << 30, Gate: true}); err != nil {
			t.Fatal(err)
		}
		if l, err = stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Sync: s.SyncLog, SyncAll: s.SyncAll}); err != nil {
			t.Fatal(err)
		}
	}
	start()
	defer func() { s.Close() }()
	now := func(int) *stream.Log {
		door.RLock()
		defer door.RUnlock()
		return l
	}
	h := newHistorian(t, now)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	half := make(chan struct{})
	var made, torn atomic.Int64
	var histories sync.WaitGroup
	for range 16 {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		histories.Go(func() {
			for {
				no := made.Add(1)
				if no > int64(most) {
					return
				}
				if no == int64(most)/2 {
					close(half)
				}
				before := now(0)
				one := h.write(t.Context(), r)
				if before != now(0) {
					torn.Add(1)
				}
				h.check(one, now)
			}
		})
	}
	<-half
	door.Lock()
	s.Close()
	start()
	door.Unlock()
	histories.Wait()
	t.Logf("%d histories were torn by a restart", torn.Load())
	return h, most
}

// clustered is three nodes in trouble, and a link and a connection for each client.
func clustered(t *testing.T, n int) (*historian, int) {
	span := 6 * time.Second
	if os.Getenv("GENSTREAM_FOR") != "" {
		span = 30 * time.Second
	}
	p := natsdtest.StartProcesses(t)
	logs := make([]*stream.Log, historyClients)
	for i := range logs {
		logs[i] = openOn(t, p, p.Link().URL())
	}
	h := newHistorian(t, func(client int) *stream.Log { return logs[client] })
	h.patience = [2]time.Duration{200 * time.Millisecond, 8 * time.Second}
	r := rand.New(rand.NewPCG(uint64(n), 1))
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var mu sync.Mutex
	var all []*history
	var histories sync.WaitGroup
	for range 4 {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		histories.Go(func() {
			for ctx.Err() == nil {
				one := h.write(ctx, r)
				mu.Lock()
				all = append(all, one)
				mu.Unlock()
			}
		})
	}
	trouble, end := context.WithTimeout(t.Context(), span)
	defer end()
	select {
	case <-time.After(time.Second):
	case <-trouble.Done():
	}
	natsdtest.Troubles()[n/2%len(natsdtest.Troubles())].Make(trouble, p, r)
	healed := time.Now()
	if !p.Heal(t.Context(), 2*time.Minute) {
		t.Error("the nodes are not of one mind two minutes after the trouble")
	}
	t.Logf("of one mind after %s", time.Since(healed).Round(100*time.Millisecond))
	histories.Wait()
	for _, one := range all {
		h.check(one, h.log)
	}
	return h, len(all)
}

// openOn opens the log, once the cluster takes it.
func openOn(t *testing.T, p *natsdtest.Processes, urls string) *stream.Log {
	t.Helper()
	nc := p.Connect(urls)
	until := time.After(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		l, err := stream.Open(ctx, nc, stream.Config{Replicas: natsdtest.Nodes, Create: true})
		cancel()
		if err == nil {
			return l
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-until:
			t.Fatal(err)
		}
	}
}
