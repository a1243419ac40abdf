package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider"
)

// simulation is one seed's world: a log, the processes that work on it, a client,
// a provider that keeps a journal, a bucket, and bad luck until it gets calm. The
// processes run the code of production; only what is outside of them is made up.
type simulation struct {
	loop
	rig  *rig
	seed uint64

	log       simLog
	gated     bool // embedded: one process, and a power cut takes what is not synced
	webhooks  bool
	brings    bool // the ingress has its orchestrator decide on what comes
	processes []*process
	projector simProjector
	requester simClient
	provider  simProvider
	bucket    map[string]events.File
	blobs     int

	calm     time.Time // from then on nothing goes wrong
	whole    time.Time // since then every process runs
	rates    [kinds]int
	cuts     int
	open     int // generations in the log that are not completed
	checks   map[string]bool
	acked    map[uint64]bool // commits that the shared queue does not give out again
	queued   uint64
	problems []string
}

// process is one process: an orchestrator with the ingress for webhooks, or a
// projector, or, embedded, all of them.
type process struct {
	s       *simulation
	name    string
	life    int // restarts so far
	alive   bool
	ready   bool
	o       *Orchestrator
	threads []*thread

	fed     uint64 // commits up to this one were read
	feeding bool
	looks   time.Time // when the open table is looked at next
	turns   time.Time // and the line for the provider
}

func (p *process) String() string { return p.name + "." + strconv.Itoa(p.life) }

func newSimulation(r *rig, seed uint64, tracing bool) *simulation {
	s := &simulation{rig: r, seed: seed, bucket: map[string]events.File{}, checks: map[string]bool{}, acked: map[uint64]bool{}}
	s.rng = rand.New(rand.NewPCG(seed, 11))
	s.tracing = tracing
	s.idle = r.idle
	time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute))) // so that a seed does not depend on those before it
	s.now = time.Now()
	s.start = s.now
	s.log = simLog{s: s, last: map[events.ID]uint64{}}
	for k := range s.rates {
		s.rates[k] = faults[k].often * []int{0, 1, 1, 4}[s.rng.IntN(4)]
	}
	s.gated = s.chance(60)
	s.webhooks, s.brings = s.chance(70), s.chance(70)
	s.calm = s.start.Add(10*time.Second + s.upto(40*time.Second))
	s.provider = simProvider{
		s: s, tasks: map[string]*simTask{},
		used: map[uint64]bool{}, urls: map[string]*simTask{}, bodies: map[int][]provider.Result{}, given: 5 * time.Second,
	}
	if s.chance(50) {
		s.provider.given = time.Minute
	}
	r.log.simLog, r.provider.simProvider = &s.log, &s.provider
	n := 1
	if !s.gated {
		n = 1 + s.rng.IntN(3)
	}
	for i := range n {
		s.processes = append(s.processes, &process{s: s, name: string(rune('a' + i))})
	}
	s.projector = simProjector{s: s, p: s.processes[0], rows: map[events.ID]*simRow{}}
	if !s.gated {
		s.projector.p = &process{s: s, name: "proj"}
		s.processes = append(s.processes, s.projector.p)
	}
	for _, p := range s.processes {
		s.boot(p)
	}
	s.requester = simClient{s: s}
	s.requester.plan()
	s.misfortune()
	return s
}

// misfortune plans what happens to whole processes.
func (s *simulation) misfortune() {
	early := func() time.Time { return s.start.Add(s.upto(s.calm.Sub(s.start))) }
	back := func() time.Duration {
		if s.chance(20) { // nothing may be running when a deadline passes, or until shortly before
			return s.upto(100 * time.Second)
		}
		return s.upto(4 * time.Second)
	}
	for s.chance(35) {
		s.plan(early(), nil, func() {
			p := s.processes[s.rng.IntN(len(s.processes))]
			if p.alive {
				s.hit(killed)
				s.kill(p)
				s.restart(p, back())
			}
		})
	}
	for s.gated && s.chance(35) {
		s.plan(early(), nil, func() { s.cutPower(back()) })
	}
	for s.chance(15) {
		s.plan(early(), nil, func() {
			s.hit(logOut)
			s.log.out = s.now.Add(s.upto(8 * time.Second))
			s.note(nil, "the log is out until +%s", s.log.out.Sub(s.start))
		})
	}
}

// boot begins a life of p: what it knows is what the log says.
func (s *simulation) boot(p *process) {
	p.life++
	p.alive, p.ready, p.feeding = true, false, false
	p.looks, p.turns = time.Time{}, time.Time{}
	s.note(p, "starts")
	if p == s.projector.p {
		s.projector.begin()
	}
	if p.name == "proj" {
		p.ready = true
		s.whole = s.now
		return
	}
	o := s.rig.orchestrator(s.gated, s.webhooks)
	o.life = p.String()
	o.table.rules.Life = o.life
	o.ledger, o.fetcher = &s.log, &s.provider
	o.goes = func(f func()) {
		s.after(s.upto(200*time.Microsecond), p, func() { s.run(p, f) })
	}
	o.background, o.requests = context.Background(), "queue"
	p.o = o
	s.run2(p, func() {
		if err := o.recover(context.Background()); err != nil {
			s.hit(recoverFailed)
			s.note(p, "cannot recover: %v", err)
			s.kill(p)
			s.restart(p, time.Second)
			s.die()
		}
		o.ready.Store(true)
		p.ready = true
		s.whole = s.now
		p.fed = o.scanned
		s.note(p, "recovered up to %d", o.scanned)
		s.feed(p)
		o.noteHorizon(context.Background())
		s.every(p, 30*time.Second, func() { o.noteHorizon(context.Background()) })
		if !s.gated {
			s.every(p, stream.AckWait/2, o.extendAll)
		}
	})
}

// run2 is run, also for whoever is not a happening of the world.
func (s *simulation) run2(p *process, f func()) {
	s.after(0, p, func() { s.run(p, f) })
}

func (s *simulation) every(p *process, d time.Duration, f func()) {
	s.after(d, p, func() {
		s.run(p, f)
		s.every(p, d, f)
	})
}

// kill ends p at once. What it had sent arrives within a moment, or never.
func (s *simulation) kill(p *process) {
	s.note(p, "killed")
	p.alive, p.ready = false, false
	s.end(p)
	s.provider.orphan(p)
	if s.current != nil && s.current.in == p {
		s.restart(p, s.upto(3*time.Second))
	}
}

func (s *simulation) restart(p *process, after time.Duration) {
	life := p.life
	s.after(after, nil, func() {
		if !p.alive && p.life == life {
			s.boot(p)
		}
	})
}

// cutPower ends everything that is embedded, and what the disk does not hold.
func (s *simulation) cutPower(back time.Duration) {
	s.hit(powerCut)
	s.cuts++
	p := s.processes[0]
	if p.alive {
		s.kill(p)
	}
	s.log.cutPower()
	s.projector.cutPower()
	s.note(nil, "power cut: the log ends at %d", s.log.end())
	s.open = 0
	done := map[events.ID]bool{}
	for _, c := range s.log.stored {
		if c.Version == 1 {
			s.open++
		}
		if c.Completes() && !done[c.ID] {
			done[c.ID] = true
			s.open--
		}
	}
	s.restart(p, back)
}

// happen lets things happen until all is done and at rest, or the time is up.
func (s *simulation) happen() {
	var rest time.Time
	for end := s.start.Add(time.Hour); s.step(end); {
		for _, p := range s.processes {
			if p.ready && p.o != nil {
				s.pump(p)
			}
		}
		if len(s.problems) > 0 {
			return
		}
		if s.turns > 60_000 {
			s.problem("it does not come to rest: %d happenings by +%s", s.turns, s.now.Sub(s.start))
			return
		}
		busy := s.open > 0 || s.requester.asking > 0 || s.projector.lag() > 0 || !s.allReady()
		s.awake = s.calm
		if busy {
			s.awake = end
		}
		switch {
		case busy || s.now.Before(s.calm):
			rest = time.Time{}
			if s.turns%64 == 0 && s.now.Sub(s.last()) > 5*time.Minute {
				return // the judge says who is late
			}
		case rest.IsZero():
			rest = s.now.Add(3 * time.Second)
		case s.now.After(rest):
			return
		}
	}
}

func (s *simulation) allReady() bool {
	for _, p := range s.processes {
		if !p.ready {
			return false
		}
	}
	return true
}

// last is when the last generation has to be completed.
func (s *simulation) last() time.Time {
	last := s.whole
	for _, c := range s.log.stored {
		if r, ok := c.commit.Events[0].(events.Requested); ok && r.Deadline.After(last) {
			last = r.Deadline
		}
	}
	if last.Before(s.calm) {
		return s.calm
	}
	return last
}

// pump is what the loops of Run do: it wakes what is due in the open table and
// whose turn it is in the line for the provider.
func (s *simulation) pump(p *process) {
	t, l := p.o.table, p.o.lanes["sim"]
	if kicked(t.kick) || !p.looks.After(s.now) {
		for {
			e, due, wait := t.next(s.now)
			if e != nil {
				p.o.due(e, due)
				continue
			}
			p.looks = s.now.Add(wait)
			s.pass(p, wait)
			break
		}
	}
	if kicked(l.kick) || !p.turns.After(s.now) {
		for {
			e, wait := l.next()
			if e != nil {
				p.o.place(e)
				continue
			}
			p.turns = s.now.Add(wait)
			s.pass(p, wait)
			break
		}
	}
}

// pass has p looked at again after a while.
func (s *simulation) pass(p *process, wait time.Duration) {
	if wait < time.Hour {
		s.push(happening{at: s.now.Add(wait), in: p, life: p.life, looks: true})
	}
}

func kicked(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// appended brings a commit to everybody who follows the log.
func (s *simulation) appended(p *process, c events.Commit) {
	if s.tracing {
		s.note(p, "log %d: %s v%d %s", c.Sequence, s.short(c.ID), c.Version, events.Types(c.Events))
	}
	if c.Version == 1 {
		s.open++
	}
	if c.Events[len(c.Events)-1].Type() == (events.Completed{}).Type() {
		s.open--
	}
	for _, q := range s.processes {
		if q.ready && q.o != nil {
			s.feed(q)
		}
	}
	s.projector.feed()
	if !s.gated {
		s.hand(c.Sequence)
	}
}

// feed has p read what is new.
func (s *simulation) feed(p *process) {
	if p.feeding || p.fed >= s.log.end() {
		return
	}
	p.feeding = true
	d := s.upto(time.Millisecond)
	if s.bad(feedLate) {
		d = s.upto(3 * time.Second)
	}
	s.after(d, p, func() {
		p.feeding = false
		upto := s.log.end()
		if upto-p.fed > 1 && s.chance(20) {
			upto = p.fed + 1
		}
		batch := s.log.entries(p.fed, upto)
		p.fed = upto
		for _, e := range batch {
			if s.gated {
				p.o.take(stream.Work{Entry: e})
			} else if e := p.o.see(e); e != nil {
				p.o.learn(e)
			}
		}
		if !s.gated {
			p.o.position.Store(upto)
		}
		s.feed(p)
	})
}

// hand gives a commit out of the queue that all orchestrators share.
func (s *simulation) hand(sequence uint64) {
	d := s.upto(2 * time.Millisecond)
	if s.bad(feedLate) {
		d = s.upto(3 * time.Second)
	}
	s.after(d, nil, func() {
		p := s.anyReady()
		if p == nil {
			s.after(time.Second, nil, func() { s.hand(sequence) })
			return
		}
		t := &handed{s: s, sequence: sequence, until: s.now.Add(stream.AckWait)}
		p.o.take(stream.NewWork(s.log.stored[sequence-1].Entry, nil, t))
		t.watch()
		if s.bad(handedAgain) { // the queue's position goes back
			old := 1 + uint64(s.rng.IntN(int(s.log.end())))
			s.acked[old] = false
			s.hand(old)
		}
	})
}

// handed is a commit in somebody's hands.
type handed struct {
	s        *simulation
	sequence uint64
	until    time.Time
}

func (h *handed) watch() {
	h.s.plan(h.until, nil, func() {
		switch {
		case h.s.acked[h.sequence]:
		case h.until.After(h.s.now):
			h.watch()
		default:
			h.s.hit(redelivered)
			h.s.hand(h.sequence)
		}
	})
}

// Ack implements stream.Taken.
func (h *handed) Ack() error {
	if !h.s.bad(workAckLost) {
		h.s.acked[h.sequence] = true
	}
	return nil
}

// InProgress implements stream.Taken.
func (h *handed) InProgress() error {
	h.until = h.s.now.Add(stream.AckWait)
	return nil
}

// NakWithDelay implements stream.Taken.
func (h *handed) NakWithDelay(time.Duration) error { return nil }

func (s *simulation) anyReady() *process { return s.any(func(p *process) bool { return p.ready }) }
func (s *simulation) anyAlive() *process { return s.any(func(p *process) bool { return p.alive }) }

func (s *simulation) any(ok func(*process) bool) *process {
	first := s.rng.IntN(len(s.processes))
	for i := range s.processes {
		p := s.processes[(first+i)%len(s.processes)]
		if p.o != nil && ok(p) {
			return p
		}
	}
	return nil
}

// left is called whenever something leaves a process that rests on a commit: it
// has to be on disk (I17).
func (s *simulation) left(what string, id events.ID, sequence uint64) {
	if sequence == 0 || sequence > s.log.durable {
		s.problem("I17: %s of %s left the process before commit %d was on disk (%d)", what, s.short(id), sequence, s.log.durable)
	}
}

func (s *simulation) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
	s.note(nil, "VIOLATION "+format, args...)
}

func (s *simulation) short(id events.ID) string {
	for i, p := range s.requester.promises {
		if p.id == id {
			return "g" + strconv.Itoa(i)
		}
	}
	return cmp.Or(string(id), "nothing")
}
