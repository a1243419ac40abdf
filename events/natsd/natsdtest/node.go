package natsdtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// asNode has a test binary be a NATS server; its value is a nodeConfig.
const asNode = "GENSTREAM_TEST_NODE"

// nodeConfig is what a node is started with.
type nodeConfig struct {
	Name                string
	Dir                 string
	Port, Routed, Asked int      // for clients, for routes, for questions
	Routes              []string // proxies of the others
}

func (c nodeConfig) options() *server.Options {
	o := &server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Port, HTTPHost: "127.0.0.1", HTTPPort: c.Asked,
		JetStream: true, StoreDir: c.Dir, SyncAlways: true, JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 4 << 30,
		// Whom they hear of from each other must not be a way around the proxies.
		Cluster: server.ClusterOpts{
			Name: "test", Host: "127.0.0.1", Port: c.Routed, PoolSize: -1, Advertise: "127.0.0.1:1", NoAdvertise: true,
		},
		NoSigs: true, NoLog: true,
	}
	for _, r := range c.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: r})
	}
	return o
}

// BeNode makes this process a NATS server, if StartProcesses started it as one, and
// does not return then. A package that uses StartProcesses calls it in TestMain,
// first.
func BeNode() {
	text := os.Getenv(asNode)
	if text == "" {
		return
	}
	var c nodeConfig
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "NATS node:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run runs the server until SIGTERM, or until the process that started it is gone.
func (c nodeConfig) run() error {
	s, err := server.NewServer(c.options())
	if err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphaned)
	}()
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		return fmt.Errorf("%s is not ready", c.Name)
	}
	select {
	case <-term:
		s.Shutdown()
		s.WaitForShutdown()
	case <-orphaned:
	}
	return nil
}

// node is one server and its process.
type node struct {
	nodeConfig
	mu     sync.Mutex // held while its process begins or ends
	cmd    *exec.Cmd  // nil while it is stopped
	stdin  io.Closer
	said   bytes.Buffer
	exited chan struct{}
	paused bool
}

func (n *node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return nil
	}
	text, err := json.Marshal(n.nodeConfig)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asNode+"="+string(text))
	cmd.Stderr = &n.said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	n.cmd, n.stdin, n.exited, n.paused = cmd, stdin, exited, false
	go func() { _ = cmd.Wait(); close(exited) }()
	return nil
}

// end signals the process and waits until it is gone.
func (n *node) end(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(sig)
	_ = n.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-n.exited:
	case <-time.After(20 * time.Second):
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
	n.stdin.Close()
	n.cmd = nil
}

func (n *node) pause(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil || n.paused == yes {
		return
	}
	sig := syscall.SIGCONT
	if yes {
		sig = syscall.SIGSTOP
	}
	_ = n.cmd.Process.Signal(sig)
	n.paused = yes
}
