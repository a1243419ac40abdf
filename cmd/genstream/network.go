package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/stream"
)

// wires are the process's ways to the outside. The zero value is the network;
// a test that runs on fake time gives pipes.
type wires struct {
	listen    func(address string) (net.Listener, error)
	transport http.RoundTripper // of provider calls, downloads and the simulator's webhooks; nil = the network

	// free measures the disk that a directory is on, in bytes; nil = natsd.Free.
	free func(dir string) (free, total int64, err error)
}

func (w wires) open(address string) (net.Listener, error) {
	if w.listen != nil {
		return w.listen(address)
	}
	return net.Listen("tcp", address)
}

// openListeners takes the ports first, so that what is told to others is true.
func (n *node) openListeners() error {
	var err error
	if n.has(roleAPI) {
		if n.api, err = n.listen(n.cfg.Listen); err != nil {
			return fmt.Errorf("listen for the API: %w", err)
		}
		if !loopback(n.api.Addr()) && n.cfg.APIKeys == "" {
			return fmt.Errorf("listen on %s: an address that others can reach needs --api-keys", n.api.Addr())
		}
	}
	n.hooksBase = n.cfg.WebhookURL
	if n.has(roleIngress) {
		if n.hooks, err = n.listen(n.cfg.HooksListen); err != nil {
			return fmt.Errorf("listen for webhooks: %w", err)
		}
	}
	if n.cfg.OpsListen != "" {
		if n.ops, err = n.listen(n.cfg.OpsListen); err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
	}
	return nil
}

// listen takes the address, or the next free port if its port is taken and the
// address is a loopback one: two demos beside each other are no error.
func (n *node) listen(address string) (net.Listener, error) {
	l, err := n.wires.open(address)
	if err == nil {
		return l, nil
	}
	host, port, splitErr := net.SplitHostPort(address)
	if splitErr != nil || port == "0" || !isLoopbackHost(host) {
		return nil, err
	}
	if l, again := n.wires.open(net.JoinHostPort(host, "0")); again == nil {
		return l, nil
	}
	return nil, err
}

// serve runs an HTTP server on a listener until the node stops.
func (n *node) serve(l net.Listener, h http.Handler, part func(string, func() error)) {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	n.servers = append(n.servers, s)
	part("HTTP on "+l.Addr().String(), func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

func loopback(a net.Addr) bool {
	host, _, err := net.SplitHostPort(a.String())
	return err != nil || isLoopbackHost(host)
}

func isLoopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// pingEvery is how often a server is asked whether it is there. One that has left
// two questions unanswered is given up for another: after 10 to 15 s.
const pingEvery = 5 * time.Second

// connect connects to somebody else's NATS. The error holds no password.
func connect(cfg config) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("genstream"), nats.MaxReconnects(-1), nats.CustomInboxPrefix(stream.OwnInbox), nats.RetryOnFailedConnect(false),
		// By default a server that has gone silent is given up after 4 to 6 minutes, in
		// which this process would sit on work that others could do.
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
	}
	if cfg.NATSCreds != "" {
		opts = append(opts, nats.UserCredentials(cfg.NATSCreds))
	}
	nc, err := nats.Connect(cfg.NATSURL, opts...)
	var parse *url.Error
	if errors.As(err, &parse) { // it quotes the URL, password and all
		err = parse.Err
	}
	return nc, err
}

// redactURL is a NATS URL, or several with commas between them, without passwords.
func redactURL(raw string) string {
	var all []string
	for part := range strings.SplitSeq(raw, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") { // as nats.Connect reads it
			part = "nats://" + part
		}
		u, err := url.Parse(part)
		if err != nil {
			return "the given URL" // the error would quote it
		}
		if _, secret := u.User.Password(); !secret && u.User != nil {
			u.User = url.User("xxxxx") // a user alone is a token
		}
		all = append(all, u.Redacted())
	}
	return strings.Join(all, ",")
}
