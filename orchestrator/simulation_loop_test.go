package orchestrator

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"
)

// loop is the simulation's time and its threads of control. All of them run on one
// goroutine, one at a time and each until it waits for something, so that a seed
// repeats a run. The clock is that of the synctest bubble around it: the code under
// test reads time.Now like everywhere.
type loop struct {
	rng   *rand.Rand
	start time.Time
	now   time.Time
	due   happenings
	count int // of happenings planned; it orders those of the same time
	turns int // of happenings so far

	current *thread   // nil: a happening of the world, which must not wait
	awake   time.Time // until then there is something to do, whatever happens
	idle    []*thread
	graves  []*thread

	tracing bool
	diary   strings.Builder
}

// happening is something that will happen; if it is in a process, only if that
// life of it lasts until then.
type happening struct {
	at    time.Time
	order int
	in    *process
	life  int
	do    func()
	wakes *thread // or the thread that goes on
	wait  int     // and with which of its waits
	looks bool    // or the process looks whether something is due
}

// thread is one thread of control of a process.
type thread struct {
	in    *process
	work  func()
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	waits int
	place int // in its process's threads
	idle  bool
	dead  bool
}

// errKilled unwinds a thread whose process is gone: nothing of it runs any more
// but what is deferred, and that touches nothing outside the process.
const errKilled = "killed"

func (l *loop) upto(d time.Duration) time.Duration { return time.Duration(l.rng.Int64N(int64(d) + 1)) }
func (l *loop) chance(percent int) bool            { return l.rng.IntN(100) < percent }

// plan has do happen at the time; in, unless nil, must live until then.
func (l *loop) plan(at time.Time, in *process, do func()) {
	h := happening{at: at, in: in, do: do}
	if in != nil {
		h.life = in.life
	}
	l.push(h)
}

func (l *loop) after(d time.Duration, in *process, do func()) { l.plan(l.now.Add(d), in, do) }

func (l *loop) push(h happening) {
	l.count++
	h.order = l.count
	l.due.push(h)
}

// step lets the next thing happen. It reports false if there is none by the end.
func (l *loop) step(end time.Time) bool {
	if len(l.due) == 0 || l.due[0].at.After(end) {
		return false
	}
	h := l.due.pop()
	if h.in != nil && (h.in.life != h.life || !h.in.alive) || h.wakes != nil && (h.wakes.dead || h.wakes.waits != h.wait) {
		return true
	}
	l.turns++
	if h.looks && h.at.Before(l.awake) && h.in.looks.After(h.at) && h.in.turns.After(h.at) {
		return true // there was an earlier look, since which it waits for something later
	}
	if h.at.After(l.now) {
		time.Sleep(h.at.Sub(l.now))
		l.now = h.at
	}
	switch {
	case h.looks: // they do, whatever happened
	case h.wakes != nil:
		l.resume(h.wakes)
	default:
		h.do()
	}
	l.bury()
	return true
}

// run has a thread of p begin with work, now. Only happenings of the world call it.
func (l *loop) run(p *process, work func()) {
	var t *thread
	if n := len(l.idle); n > 0 {
		t, l.idle = l.idle[n-1], l.idle[:n-1]
	} else {
		t = &thread{}
		t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			defer func() {
				if r := recover(); r != nil && !t.dead {
					panic(fmt.Sprintf("%v\n%s", r, debug.Stack()))
				}
			}()
			for {
				t.work()
				t.idle = true
				if !yield(struct{}{}) {
					return
				}
			}
		})
	}
	t.in, t.work, t.idle = p, work, false
	t.place = len(p.threads)
	p.threads = append(p.threads, t)
	l.resume(t)
}

func (l *loop) resume(t *thread) {
	if l.current != nil {
		panic("simulation: a thread runs already")
	}
	l.current = t
	t.waits++ // whatever else would have ended this wait is out of date
	t.next()
	l.current = nil
	if t.idle {
		p := t.in
		last := len(p.threads) - 1
		p.threads[t.place] = p.threads[last]
		p.threads[t.place].place = t.place
		p.threads = p.threads[:last]
		t.in, t.work = nil, nil
		l.idle = append(l.idle, t)
	}
}

// wait ends the present turn of the current thread; wake, or the time, resumes it.
func (l *loop) wait() {
	t := l.current
	if t == nil {
		panic("simulation: the world waits for nobody")
	}
	if !t.yield(struct{}{}) {
		t.dead = true
		panic(errKilled)
	}
}

// sleep lets the current thread wait for a while.
func (l *loop) sleep(d time.Duration) {
	l.current.waits++
	l.wakeAt(l.current, l.now.Add(d))
	l.wait()
}

// wakeAt plans the end of the present wait of t.
func (l *loop) wakeAt(t *thread, at time.Time) {
	l.push(happening{at: at, wakes: t, wait: t.waits})
}

// end takes every thread of p away. If the current one is among them, its caller
// goes on to die.
func (l *loop) end(p *process) {
	for _, t := range p.threads {
		t.dead = true
		if t != l.current {
			l.graves = append(l.graves, t)
		}
	}
	p.threads = p.threads[:0]
}

// die ends the current thread, whose process has ended.
func (l *loop) die() { panic(errKilled) }

func (l *loop) bury() {
	for _, t := range l.graves {
		t.stop()
	}
	l.graves = l.graves[:0]
}

// note writes into the diary of a run that is traced.
func (l *loop) note(p *process, format string, args ...any) {
	if !l.tracing {
		return
	}
	who := "world"
	if p != nil {
		who = p.String()
	}
	fmt.Fprintf(&l.diary, "%12s %-6s ", "+"+l.now.Sub(l.start).String(), who)
	fmt.Fprintf(&l.diary, format, args...)
	l.diary.WriteByte('\n')
}

// happenings is a heap by time. container/heap would put each into an interface.
type happenings []happening

func (h happenings) before(i, j int) bool {
	if c := h[i].at.Compare(h[j].at); c != 0 {
		return c < 0
	}
	return h[i].order < h[j].order
}

func (h *happenings) push(x happening) {
	*h = append(*h, x)
	q := *h
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.before(i, up) {
			return
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
}

func (h *happenings) pop() happening {
	q := *h
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], happening{}
	q = q[:last]
	*h = q
	for i := 0; ; {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < last; down++ {
			if q.before(down, least) {
				least = down
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}
