package natsdtest

import (
	"context"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// Trouble is one kind of trouble for a cluster.
type Trouble struct {
	Name string
	// Make makes it until ctx ends, and leaves it as it is then: Heal mends it.
	Make func(ctx context.Context, p *Processes, r *rand.Rand)
}

// Troubles are all kinds. Their order is part of the number of a case: new ones
// come last.
func Troubles() []Trouble {
	return []Trouble{
		{"kill the leader", repeated(leader, ended(syscall.SIGKILL), 2*time.Second, 12*time.Second)},
		{"isolate the leader", repeated(leader, isolated(severed), 2*time.Second, 20*time.Second)},
		{"pause the leader", repeated(leader, paused(), 3*time.Second, 20*time.Second)},
		{"stop the leader", repeated(leader, ended(syscall.SIGTERM), time.Second, 8*time.Second)},
		{"silence the leader", repeated(leader, isolated(silent), 2*time.Second, 20*time.Second)},
		{"kill a follower", repeated(follower, ended(syscall.SIGKILL), 2*time.Second, 12*time.Second)},
		{"isolate a follower", repeated(follower, isolated(severed), 2*time.Second, 20*time.Second)},
		{"pause a follower", repeated(follower, paused(), 3*time.Second, 20*time.Second)},
		{"silence a follower", repeated(follower, isolated(silent), 2*time.Second, 20*time.Second)},
		{"cut all clients off from the leader", repeated(leader, clientless(severed), 2*time.Second, 20*time.Second)},
		{"silence all clients of the leader", repeated(leader, clientless(silent), 2*time.Second, 20*time.Second)},
		{"rolling restart", rolling(syscall.SIGTERM)},
		{"rolling kill", rolling(syscall.SIGKILL)},
		{"wipe a store", wipe},
		{"isolate leader after leader", successive},
		{"stop two of three", majority(syscall.SIGTERM)},
		{"kill all", all},
		{"cut leader and follower off from each other", pair},
		{"kill two of three", majority(syscall.SIGKILL)},
	}
}

// linger waits a random time between least and most, and reports false if ctx ends first.
func linger(ctx context.Context, r *rand.Rand, least, most time.Duration) bool {
	timer := time.NewTimer(least + time.Duration(r.Int64N(int64(most-least)+1)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// leader is the node that leads the log, any if none does for a while.
func leader(ctx context.Context, p *Processes, r *rand.Rand) int {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	node := -1
	if awaited(ctx, func() bool { node = p.Leader(); return node >= 0 }) {
		return node
	}
	return r.IntN(Nodes)
}

func follower(ctx context.Context, p *Processes, r *rand.Rand) int {
	return (leader(ctx, p, r) + 1 + r.IntN(Nodes-1)) % Nodes
}

// harm befalls a node; mend takes it back.
type harm struct{ do, mend func(p *Processes, node int) }

func paused() harm {
	return harm{
		func(p *Processes, node int) { p.nodes[node].pause(true) },
		func(p *Processes, node int) { p.nodes[node].pause(false) },
	}
}

func ended(sig syscall.Signal) harm {
	return harm{func(p *Processes, node int) { p.nodes[node].end(sig) }, (*Processes).start}
}

func isolated(mode int) harm {
	return harm{
		func(p *Processes, node int) { p.isolate(node, mode) },
		func(p *Processes, node int) { p.isolate(node, passing) },
	}
}

func clientless(mode int) harm {
	return harm{
		func(p *Processes, node int) { p.clients(node, mode) },
		func(p *Processes, node int) { p.clients(node, passing) },
	}
}

// repeated harms whoever is chosen, for a time between least and most, mends it,
// and begins again.
func repeated(choose func(context.Context, *Processes, *rand.Rand) int, h harm, least, most time.Duration) func(context.Context, *Processes, *rand.Rand) {
	return func(ctx context.Context, p *Processes, r *rand.Rand) {
		for ctx.Err() == nil {
			node := choose(ctx, p, r)
			h.do(p, node)
			if !linger(ctx, r, least, most) {
				return
			}
			h.mend(p, node)
			linger(ctx, r, time.Second, 8*time.Second)
		}
	}
}

// rolling ends one node after the other, each when the one before is well again.
func rolling(sig syscall.Signal) func(context.Context, *Processes, *rand.Rand) {
	return func(ctx context.Context, p *Processes, r *rand.Rand) {
		for node := r.IntN(Nodes); ctx.Err() == nil; node = (node + 1) % Nodes {
			p.nodes[node].end(sig)
			linger(ctx, r, 100*time.Millisecond, 2*time.Second)
			p.start(node)
			awaited(ctx, p.equal)
		}
	}
}

// wipe takes a node's store, once it is no longer needed, and waits until it has
// got it back from the others.
func wipe(ctx context.Context, p *Processes, r *rand.Rand) {
	for ctx.Err() == nil {
		node := r.IntN(Nodes)
		if !awaited(ctx, p.equal) {
			return
		}
		p.nodes[node].end(syscall.SIGKILL)
		os.RemoveAll(p.nodes[node].Dir)
		linger(ctx, r, time.Second, 5*time.Second)
		p.start(node)
		awaited(ctx, p.equal)
		linger(ctx, r, time.Second, 10*time.Second)
	}
}

// successive isolates each new leader soon after the one before came back.
func successive(ctx context.Context, p *Processes, r *rand.Rand) {
	for ctx.Err() == nil {
		node := leader(ctx, p, r)
		p.isolate(node, severed)
		linger(ctx, r, 8*time.Second, 12*time.Second)
		p.isolate(node, passing)
		linger(ctx, r, 500*time.Millisecond, 2*time.Second)
	}
}

// majority takes two nodes away until the end.
func majority(sig syscall.Signal) func(context.Context, *Processes, *rand.Rand) {
	return func(ctx context.Context, p *Processes, r *rand.Rand) {
		stays := r.IntN(Nodes)
		for node := range Nodes {
			if node != stays {
				p.nodes[node].end(sig)
			}
		}
		<-ctx.Done()
	}
}

// all kills all nodes at once, again and again.
func all(ctx context.Context, p *Processes, r *rand.Rand) {
	for ctx.Err() == nil {
		for node := range Nodes {
			p.nodes[node].end(syscall.SIGKILL)
		}
		linger(ctx, r, 0, 3*time.Second)
		for node := range Nodes {
			p.start(node)
		}
		linger(ctx, r, 12*time.Second, 25*time.Second)
	}
}

// pair has the leader and one follower not hear each other; the third hears both.
func pair(ctx context.Context, p *Processes, r *rand.Rand) {
	for ctx.Err() == nil {
		a := leader(ctx, p, r)
		b := (a + 1 + r.IntN(Nodes-1)) % Nodes
		p.between(a, b, severed)
		if !linger(ctx, r, 5*time.Second, 20*time.Second) {
			return
		}
		p.between(a, b, passing)
		linger(ctx, r, time.Second, 5*time.Second)
	}
}
