package blob

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"code.dny.dev/ssrf"

	"github.com/genstream/genstream/events"
)

const (
	dialTimeout   = 10 * time.Second
	headTimeout   = 30 * time.Second // from the request to the head of the answer
	idleTimeout   = 30 * time.Second
	maxAnswerHead = 64 << 10 // bytes
)

// gate decides where files are fetched from. It looks twice: at the URL, which
// settles most cases without a connection, and at each address that is about to be
// dialled, which settles the rest whatever the names resolve to by then.
type gate struct {
	ports   []uint16            // of the world
	own     map[string]struct{} // host:port of providers that the operator has set
	world   *ssrf.Guardian
	toWorld net.Dialer
	toOwn   net.Dialer
}

func newGate(own []string, names *net.Resolver, ports []uint16) gate {
	world := ssrf.New(ssrf.WithPorts(ports...))
	private := ssrf.New(ssrf.WithAnyPort(),
		ssrf.WithAllowedV4Prefixes(prefixes("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")...),
		ssrf.WithAllowedV6Prefixes(prefixes("::1/128", "fc00::/7")...))
	g := gate{
		ports: ports, own: map[string]struct{}{}, world: world,
		toWorld: net.Dialer{Timeout: dialTimeout, Resolver: names, Control: world.Safe},
		toOwn:   net.Dialer{Timeout: dialTimeout, Resolver: names, Control: private.Safe},
	}
	for _, h := range own {
		if _, _, err := net.SplitHostPort(h); err == nil {
			g.own[strings.ToLower(h)] = struct{}{}
			continue
		}
		for _, port := range []string{"80", "443"} {
			g.own[strings.ToLower(net.JoinHostPort(strings.Trim(h, "[]"), port))] = struct{}{}
		}
	}
	return g
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		list[i] = netip.MustParsePrefix(t)
	}
	return list
}

// transport speaks HTTP/1.1 only: one file to a connection, so that none holds up
// another.
func (g gate) transport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a proxy would resolve names where nobody checks
		DialContext:            g.dial,
		DisableCompression:     true, // bytes as they are, and no bombs
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  headTimeout,
		MaxResponseHeaderBytes: maxAnswerHead,
		IdleConnTimeout:        idleTimeout,
	}
}

// dial connects to addr, the host:port of a URL that check has let through. The
// dialer resolves it and asks its Control about each address just before it connects.
func (g gate) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, ok := g.own[strings.ToLower(addr)]; ok {
		return g.toOwn.DialContext(ctx, network, addr)
	}
	return g.toWorld.DialContext(ctx, network, addr)
}

// refused says whether an error is that of a Control.
func refused(err error) bool {
	return errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedPort) ||
		errors.Is(err, ssrf.ErrProhibitedNetwork) || errors.Is(err, ssrf.ErrInvalidHostPort)
}

// check is the look at the URL. Its error is a *FetchError with
// events.CodeFetchForbid.
func (g gate) check(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	switch {
	case len(rawURL) > events.MaxURL:
		return nil, forbid("the URL is longer than %d bytes", events.MaxURL)
	case err != nil: // its text has the URL in it
		return nil, forbid("not a URL")
	case u.Opaque != "" || u.Host == "":
		return nil, forbid("the URL has no host")
	case u.User != nil:
		return nil, forbid("the URL has a user in it")
	case !isHost(u.Hostname()):
		return nil, forbid("the URL's host is neither a name nor a plain address")
	}
	port, err := portOf(u)
	if err != nil {
		return nil, err
	}
	if _, ok := g.own[strings.ToLower(net.JoinHostPort(u.Hostname(), strconv.Itoa(int(port))))]; ok {
		return u, nil
	}
	if u.Scheme != "https" {
		return nil, forbid("only https URLs are fetched")
	}
	if !slices.Contains(g.ports, port) {
		return nil, forbid("port %d of %s is not fetched from", port, u.Hostname())
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := g.world.SafeAddr(ip); err != nil {
			return nil, failed(events.CodeFetchForbid, u.Hostname()+" is an address that nothing is fetched from", err)
		}
	}
	return u, nil
}

func portOf(u *url.URL) (uint16, error) {
	text := u.Port()
	switch {
	case text != "":
	case u.Scheme == "https":
		return 443, nil
	case u.Scheme == "http":
		return 80, nil
	default:
		return 0, forbid("only https URLs are fetched")
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, forbid("the URL's port is not one")
	}
	return uint16(port), nil
}

func forbid(format string, args ...any) error {
	return failed(events.CodeFetchForbid, fmt.Sprintf(format, args...), nil)
}

// isHost accepts an address without a zone, and a name in ASCII. A name whose last
// label begins with a digit is none: resolvers take 2130706433, 0x7f.1 and 0177.0.0.1
// for addresses, each in its own way (the WHATWG URL standard, host parsing, calls it
// "ends in a number"), and no top-level domain begins with one.
func isHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Zone() == ""
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	last := name[strings.LastIndexByte(name, '.')+1:]
	return name != "" && len(name) <= 253 && last != "" && (last[0] < '0' || last[0] > '9') &&
		!strings.Contains(name, "..") && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}
