// Package natsdtest runs three NATS servers as a cluster inside the test's
// process: real routes over loopback, file stores that sync before they
// acknowledge. It is for tests only.
package natsdtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/stream"
)

// Nodes is how many servers a Cluster has.
const Nodes = 3

// Cluster is three servers that know each other.
type Cluster struct {
	t       testing.TB
	opts    [Nodes]*server.Options
	servers [Nodes]*server.Server // nil while stopped
}

// Start runs a cluster until the test ends, and returns once it has a leader.
func Start(t testing.TB) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "genstream-cluster-*") // what it shows does not depend on how long a sync takes
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Cluster{t: t}
	t.Cleanup(c.stopAll)
	// Ports have to be known before the servers take them, so that another process
	// can be faster. Then others are tried.
	for try := range 5 {
		if c.try(filepath.Join(dir, fmt.Sprint(try))) {
			break
		}
		c.stopAll()
		if try == 4 {
			t.Fatal("the cluster does not start")
		}
	}
	c.await("a meta leader", func() bool {
		for _, s := range c.servers {
			if s != nil && s.JetStreamIsLeader() {
				return s.JetStreamClusterPeers() != nil && len(s.JetStreamClusterPeers()) == Nodes
			}
		}
		return false
	})
	return c
}

// try starts the servers on ports that are free just now.
func (c *Cluster) try(dir string) bool {
	var routes []*url.URL
	var ports [Nodes]int
	for i := range Nodes {
		ports[i] = freePort(c.t)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: fmt.Sprintf("127.0.0.1:%d", ports[i])})
	}
	for i := range Nodes {
		c.opts[i] = &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: freePort(c.t),
			JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprintf("n%d", i)), SyncAlways: true,
			JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 1 << 30,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i], PoolSize: -1},
			Routes:  routes, NoSigs: true, NoLog: true,
		}
		if !c.start(i, 5*time.Second) {
			return false
		}
	}
	return true
}

func (c *Cluster) stopAll() {
	for i := range Nodes {
		c.Stop(i)
	}
}

// Stop shuts a server down cleanly.
func (c *Cluster) Stop(i int) {
	if s := c.servers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		c.servers[i] = nil
	}
}

// Restart starts a server on the store that it had.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	if !c.start(i, 20*time.Second) {
		c.t.Fatalf("server %d is not ready", i)
	}
}

func (c *Cluster) start(i int, atMost time.Duration) bool {
	c.t.Helper()
	opts := *c.opts[i]
	s, err := server.NewServer(&opts)
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	c.servers[i] = s
	return s.ReadyForConnections(atMost)
}

// Leader is the server that leads a stream, -1 if none does.
func (c *Cluster) Leader(name string) int {
	for i, s := range c.servers {
		if s != nil && s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, name) {
			return i
		}
	}
	return -1
}

// AwaitLeader waits until some server leads a stream.
func (c *Cluster) AwaitLeader(name string) {
	c.t.Helper()
	c.await("a leader of "+name, func() bool { return c.Leader(name) >= 0 })
}

// URL names all servers, for clients that go on with another when theirs is gone.
func (c *Cluster) URL() string {
	urls := ""
	for i, o := range c.opts {
		if i > 0 {
			urls += ","
		}
		urls += fmt.Sprintf("nats://127.0.0.1:%d", o.Port)
	}
	return urls
}

// Connect is a connection to the cluster until the test ends.
func (c *Cluster) Connect() *nats.Conn {
	c.t.Helper()
	nc, err := nats.Connect(c.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.CustomInboxPrefix(stream.OwnInbox))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

func (c *Cluster) await(what string, ok func() bool) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			c.t.Fatalf("the cluster has not got %s", what)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
