package natsdtest

import (
	"net"
	"sync"
)

// How a proxy passes on what it is given.
const (
	passing = iota
	silent  // nothing passes, and nobody is told: it is held until the network is whole
	severed // connections break, and new ones are refused
)

// proxy is one direction in which somebody connects to somebody, over TCP.
type proxy struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	mode    int
	changed chan struct{} // closed and replaced when the mode changes
	conns   map[net.Conn]bool
	closed  bool
}

func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, to: to, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	go p.run()
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) run() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.open(from) {
			go p.connect(from)
		}
	}
}

// connect passes on a connection that was taken.
func (p *proxy) connect(from net.Conn) {
	defer p.forget(from)
	p.whole()
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer p.forget(to)
	if !p.open(to) {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		p.pass(from, to)
	}()
	p.pass(to, from)
	<-back
}

// pass copies until one side ends, and ends the other.
func (p *proxy) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.whole()
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// whole returns when the proxy is not silent.
func (p *proxy) whole() {
	for {
		p.mu.Lock()
		mode, changed := p.mode, p.changed
		p.mu.Unlock()
		if mode != silent {
			return
		}
		<-changed
	}
}

// open notes a connection, or breaks it.
func (p *proxy) open(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == severed || p.closed {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) forget(c net.Conn) {
	c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

func (p *proxy) set(mode int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == mode {
		return
	}
	p.mode = mode
	close(p.changed)
	p.changed = make(chan struct{})
	if mode == severed {
		for c := range p.conns {
			c.Close()
		}
	}
}

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.set(severed)
}

// Link is one client's way to a cluster of processes: one proxy for each node, so
// that a client can be cut off alone.
type Link struct{ proxies [Nodes]*proxy }

// URL names all nodes, as that client reaches them.
func (l *Link) URL() string { return l.To(0) + "," + l.To(1) + "," + l.To(2) }

// To is the URL of one node.
func (l *Link) To(node int) string { return "nats://" + l.proxies[node].address() }

// Sever breaks the client's connections, and it gets no new ones.
func (l *Link) Sever() { l.set(severed) }

// Silence lets nothing through, and tells neither side.
func (l *Link) Silence() { l.set(silent) }

// Heal makes the link whole again.
func (l *Link) Heal() { l.set(passing) }

func (l *Link) set(mode int) {
	for _, p := range l.proxies {
		p.set(mode)
	}
}
