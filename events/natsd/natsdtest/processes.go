package natsdtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/stream"
)

// Processes is three servers as processes of their own, with a proxy on each way
// from one to another and from a client to each: they can be killed, paused, wiped
// and cut off. Its methods may be called concurrently.
type Processes struct {
	t      testing.TB
	nodes  [Nodes]*node
	routes [Nodes][Nodes]*proxy // from, to; nil on the diagonal

	mu    sync.Mutex
	links []*Link
}

// StartProcesses runs a cluster until the test ends, and returns once it takes
// streams. TestMain must call BeNode.
func StartProcesses(t testing.TB) *Processes {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "genstream-cluster-*")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &Processes{t: t}
	for i := range Nodes {
		p.nodes[i] = &node{nodeConfig: nodeConfig{
			Name: fmt.Sprintf("n%d", i), Dir: filepath.Join(dir, fmt.Sprintf("n%d", i)),
			Port: quietPort(t), Routed: quietPort(t), Asked: quietPort(t),
		}}
	}
	for i := range Nodes {
		for j := range Nodes {
			if i == j {
				continue
			}
			if p.routes[i][j], err = newProxy(fmt.Sprintf("127.0.0.1:%d", p.nodes[j].Routed)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.routes[i][j].close)
			p.nodes[i].Routes = append(p.nodes[i].Routes, p.routes[i][j].address())
		}
	}
	t.Cleanup(func() {
		for _, n := range p.nodes {
			n.end(syscall.SIGKILL)
		}
		if t.Failed() {
			for _, n := range p.nodes {
				if n.said.Len() > 0 {
					t.Logf("%s said: %s", n.Name, n.said.String())
				}
			}
		}
	})
	for i := range Nodes {
		p.start(i)
	}
	p.await("a meta leader of three", func() bool {
		for i := range Nodes {
			if m := p.ask(i).Meta; m.Leader != "" && m.Size == Nodes && p.healthy(i) {
				return true
			}
		}
		return false
	})
	return p
}

// quietPort is a port that nobody has, and that no connection is given meanwhile:
// Linux takes theirs from 32768 on.
func quietPort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (p *Processes) start(i int) {
	if err := p.nodes[i].start(); err != nil {
		p.t.Errorf("start %s: %v", p.nodes[i].Name, err)
	}
}

// Link is a way for one more client.
func (p *Processes) Link() *Link {
	p.t.Helper()
	l := &Link{}
	for i := range Nodes {
		var err error
		if l.proxies[i], err = newProxy(fmt.Sprintf("127.0.0.1:%d", p.nodes[i].Port)); err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(l.proxies[i].close)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = append(p.links, l)
	return l
}

// Connect is a connection over a link until the test ends.
func (p *Processes) Connect(urls string) *nats.Conn {
	p.t.Helper()
	nc, err := nats.Connect(urls, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.RetryOnFailedConnect(true),
		nats.PingInterval(2*time.Second), nats.MaxPingsOutstanding(2), nats.CustomInboxPrefix(stream.OwnInbox),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the library would print it
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(nc.Close)
	return nc
}

// clients changes all clients' ways to one node.
func (p *Processes) clients(node, mode int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		l.proxies[node].set(mode)
	}
}

// isolate changes all ways between one node and the others.
func (p *Processes) isolate(node, mode int) {
	for other := range Nodes {
		if other != node {
			p.between(node, other, mode)
		}
	}
}

// Isolate cuts a node off from the others, but not from its clients.
func (p *Processes) Isolate(node int) { p.isolate(node, severed) }

func (p *Processes) between(a, b, mode int) {
	p.routes[a][b].set(mode)
	p.routes[b][a].set(mode)
}

// Leader is the node that leads the log, in its own eyes; -1 if none does.
func (p *Processes) Leader() int {
	for i, n := range p.nodes {
		if p.ask(i).log().Cluster.Leader == n.Name {
			return i
		}
	}
	return -1
}

// Heal makes everything whole, and returns once all nodes have the same log. It
// reports false if that takes longer than the time given.
func (p *Processes) Heal(ctx context.Context, atMost time.Duration) bool {
	for i, n := range p.nodes {
		n.pause(false)
		p.isolate(i, passing)
		p.clients(i, passing)
		p.start(i)
	}
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	return awaited(ctx, p.equal)
}

// equal says whether all nodes are well and have the same end of the log.
func (p *Processes) equal() bool {
	var last uint64
	for i := range Nodes {
		s := p.ask(i).log()
		if !p.healthy(i) || s.Cluster.Leader == "" || i > 0 && s.State.Last != last {
			return false
		}
		last = s.State.Last
	}
	return true
}

func awaited(ctx context.Context, ok func() bool) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (p *Processes) await(what string, ok func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if !awaited(ctx, ok) {
		p.t.Fatalf("the cluster has not got %s", what)
	}
}

// told is what a node says of itself (nats-server, JSInfo in server/monitor.go).
type told struct {
	Meta struct {
		Leader string `json:"leader"`
		Size   int    `json:"cluster_size"`
	} `json:"meta_cluster"`
	Accounts []struct {
		Streams []toldStream `json:"stream_detail"`
	} `json:"account_details"`
}

type toldStream struct {
	Name    string
	Cluster struct {
		Leader string `json:"leader"`
	}
	State struct {
		Last uint64 `json:"last_seq"`
	}
}

func (t told) log() toldStream {
	for _, a := range t.Accounts {
		for _, s := range a.Streams {
			if s.Name == stream.Name {
				return s
			}
		}
	}
	return toldStream{}
}

// ask asks a node over a way that is never cut. One that does not answer says nothing.
func (p *Processes) ask(node int) (t told) {
	p.get(node, "/jsz?streams=true", func(res *http.Response) { _ = json.NewDecoder(res.Body).Decode(&t) })
	return t
}

func (p *Processes) healthy(node int) (ok bool) {
	p.get(node, "/healthz", func(res *http.Response) { ok = res.StatusCode == http.StatusOK })
	return ok
}

func (p *Processes) get(node int, path string, read func(*http.Response)) {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", p.nodes[node].Asked, path))
	if err != nil {
		return
	}
	defer res.Body.Close()
	read(res)
}
