package orchestrator

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"golang.org/x/time/rate"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// Limits bound what one provider is asked at a time.
type Limits struct {
	Concurrent int     // create calls under way; 0 = 16
	PerSecond  float64 // create calls a second; 0 = no limit
}

// probeGap is how long a provider in trouble is left alone; then one task probes it.
const probeGap = 30 * time.Second

// lane is the way to one provider: how many create calls may be under way, how
// fast, and whether it makes sense to call at all. Generations that may not call
// yet wait here in order of arrival, and nowhere in the log.
type lane struct {
	provider.Provider
	name    string
	limits  Limits
	breaker circuitbreaker.CircuitBreaker[any]
	rate    *rate.Limiter // nil = no limit
	kick    chan struct{} // capacity 1: something may have become possible

	mu      sync.Mutex
	busy    int
	waiting []*entry
	trouble *events.Error // why the breaker opened; nil while it is closed
}

func newLane(name string, p provider.Provider, limits Limits) *lane {
	if limits.Concurrent <= 0 {
		limits.Concurrent = 16
	}
	l := &lane{Provider: p, name: name, limits: limits, kick: make(chan struct{}, 1)}
	l.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(5).WithSuccessThreshold(1).WithDelay(probeGap).Build()
	if limits.PerSecond > 0 {
		l.rate = rate.NewLimiter(rate.Limit(limits.PerSecond), max(1, int(limits.PerSecond)))
	}
	return l
}

// enter takes a place for one create call without waiting.
func (l *lane) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0 && l.admit()
}

// admit is enter for whoever is first. The mutex is held.
func (l *lane) admit() bool {
	if l.busy >= l.limits.Concurrent || l.rate != nil && l.rate.Tokens() < 1 || !l.breaker.TryAcquirePermit() {
		return false
	}
	if l.rate != nil {
		l.rate.Allow()
	}
	l.busy++
	return true
}

// join lines e up; it is given a place, and woken, when its turn comes.
func (l *lane) join(e *entry) {
	l.mu.Lock()
	l.waiting = append(l.waiting, e)
	l.mu.Unlock()
	l.nudge()
}

// leave gives a place back with what became of the call: nil for an answer that
// speaks for the provider's health, whatever it says about the tasks.
func (l *lane) leave(err *provider.Error) {
	l.mu.Lock()
	l.busy--
	switch {
	case err == nil || err.Kind == provider.Refused:
		l.breaker.RecordSuccess()
		l.trouble = nil
	case err.Kind == provider.Account: // it would say the same to everybody
		l.trouble = &err.Err
		l.breaker.RecordFailure()
		if !l.breaker.IsOpen() {
			l.breaker.Open()
		}
	case err.Kind == provider.Busy: // alive, and answered for this call only
		if l.breaker.IsHalfOpen() {
			l.breaker.RecordSuccess()
			l.trouble = nil
		}
	default:
		l.breaker.RecordFailure()
		if l.breaker.IsOpen() {
			l.trouble = &err.Err
		}
	}
	l.mu.Unlock()
	l.nudge()
}

// giveBack returns a place that was not used for a call.
func (l *lane) giveBack() {
	l.mu.Lock()
	l.busy--
	if l.breaker.IsHalfOpen() {
		// It was the probe's place, and there was no probe: whoever is next makes it.
		l.breaker.Open()
		l.breaker.HalfOpen() // alone it would change nothing
	}
	l.mu.Unlock()
	l.nudge()
}

// Trouble is why the provider is not being called, nil if it is.
func (l *lane) Trouble() *events.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble
}

func (l *lane) nudge() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// run hands out places in order until ctx ends. wake is called without locks.
func (l *lane) run(ctx context.Context, wake func(*entry)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, wait := l.next()
		if next != nil {
			wake(next)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
		case <-timer.C:
		}
	}
}

// next is the first in line, with a place, or how long nobody can have one
// unless somebody leaves.
func (l *lane) next() (*entry, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return nil, time.Hour
	}
	if l.admit() {
		e := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		return e, 0
	}
	if d := l.breaker.RemainingDelay(); d > 0 {
		return nil, d
	}
	if l.rate != nil && l.rate.Tokens() < 1 {
		return nil, time.Duration(float64(time.Second) / l.limits.PerSecond)
	}
	return nil, time.Hour
}
