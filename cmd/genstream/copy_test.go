package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/events"
)

// TestCopyOfTheLiveStoreGoesOn: at random moments under load the store is copied, as
// a SIGKILL leaves it, the running server loses its network for good, and another
// one goes on from the copy. The provider, the clients and their promises stay.
func TestCopyOfTheLiveStoreGoesOn(t *testing.T) {
	n, copies := 300, 6
	if long {
		n, copies = 10_000, 200
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, weather(11))
		home := w.cfg.Data
		now := w.live(filepath.Join(home, "first"))
		lives := []*life{now}
		rng := rand.New(rand.NewPCG(11, 1))
		loaded := make(chan struct{})
		var ids []events.ID
		go func() {
			defer close(loaded)
			ids = w.load(n, 16, func(int) {})
		}()
		// The load takes at least 100 ms for each 16 generations.
		gap := time.Duration(n/16) * 100 * time.Millisecond / time.Duration(copies)
		for i := range copies {
			time.Sleep(time.Duration(rng.Int64N(int64(2 * gap))))
			synctest.Wait() // the moment: nothing moves
			now = now.replaced(w, filepath.Join(home, fmt.Sprint("copy-", i)))
			lives = append(lives, now)
		}
		<-loaded
		w.settle(15 * time.Minute)
		w.checkAgainstJournal(ids)
		w.verify()
		t.Logf("%d generations, %d copies went on", n, copies)
		w.end()
		now.cut()
		for _, l := range lives[:copies] {
			<-l.gone
		}
	})
}

// life is one server and its network.
type life struct {
	pipes *pipes
	node  *node
	stop  context.CancelFunc
	done  chan error
	gone  chan struct{} // closed when it has been cut off, and has stopped

	mu    sync.Mutex
	dead  bool
	conns []net.Conn
	ports []net.Listener
}

// live starts a server on a directory, and has the world talk to it.
func (w *world) live(dir string) *life {
	w.t.Helper()
	l := &life{pipes: w.pipes, done: make(chan error, 1), gone: make(chan struct{})}
	w.cfg.Data, w.cfg.Bucket = dir, "file://"+filepath.Join(dir, "bucket")
	var ctx context.Context
	ctx, l.stop = context.WithCancel(context.Background())
	tr := &http.Transport{DialContext: l.dial, MaxIdleConnsPerHost: 64, DisableCompression: true}
	n, err := openNode(ctx, w.cfg, wires{listen: l.listen, transport: tr}, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	l.node = n
	go func() { l.done <- n.run(ctx, nil) }()
	for !n.orchestrator.Recovered() {
		time.Sleep(time.Millisecond) // fake time
	}
	w.node, w.stop, w.done = n, l.stop, l.done
	return l
}

// replaced copies the store of a server that stands still, cuts it off, and starts
// the next one on the copy. What the old one still does is seen by nobody.
func (l *life) replaced(w *world, next string) *life {
	w.t.Helper()
	old := w.cfg.Data
	if err := os.CopyFS(next, os.DirFS(old)); err != nil {
		w.t.Fatal(err)
	}
	l.cut()
	go func() { // it stops in its own time
		defer close(l.gone)
		l.stop()
		<-l.done
		l.node.close()
		os.RemoveAll(old)
	}()
	return w.live(next)
}

// cut ends the network of a life: no call of it arrives any more, and no answer.
func (l *life) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, p := range l.ports {
		p.Close()
	}
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// keep notes a connection, which is closed if the life has ended.
func (l *life) keep(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		c.Close()
		return nil, net.ErrClosed
	}
	l.conns = append(l.conns, c)
	return c, nil
}

func (l *life) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	if dead {
		return nil, net.ErrClosed
	}
	return l.keep(l.pipes.dial(ctx, network, address))
}

func (l *life) listen(address string) (net.Listener, error) {
	p, err := l.pipes.listen(address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = append(l.ports, p)
	return keptListener{p, l}, nil
}

type keptListener struct {
	net.Listener
	life *life
}

func (k keptListener) Accept() (net.Conn, error) { return k.life.keep(k.Listener.Accept()) }
