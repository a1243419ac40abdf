package blob_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

// names is a name server of our own: what is answered for a name, one list of
// addresses after the other, the last one for ever.
type names struct {
	mu      sync.Mutex
	answers map[string][][]string
	asked   map[string]int // how often for A and AAAA each
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go n.serve(theirs)
		return ours, nil
	}}
}

// serve answers questions as DNS over TCP does: a length before each message.
func (n *names) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := c.Read(size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		for read := 0; read < len(query); {
			k, err := c.Read(query[read:])
			if err != nil {
				return
			}
			read += k
		}
		answer := n.answer(query)
		if _, err := c.Write(binary.BigEndian.AppendUint16(nil, uint16(len(answer)))); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// answer builds a message of RFC 1035, section 4.1.
func (n *names) answer(query []byte) []byte {
	var labels []string
	at := 12
	for query[at] != 0 {
		labels = append(labels, string(query[at+1:at+1+int(query[at])]))
		at += 1 + int(query[at])
	}
	kind := binary.BigEndian.Uint16(query[at+1:])
	question := query[12 : at+5]
	var found [][]byte
	for _, a := range n.next(strings.ToLower(strings.Join(labels, ".")), kind) {
		ip := netip.MustParseAddr(a)
		if ip.Is4() == (kind == 1) {
			found = append(found, ip.AsSlice())
		}
	}
	b := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, byte(len(found)), 0, 0, 0, 0}, question...)
	for _, ip := range found {
		b = append(b, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(ip)))
		b = append(b, ip...)
	}
	return b
}

func (n *names) next(name string, kind uint16) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	lists := n.answers[name]
	if lists == nil {
		lists = n.answers["*"]
	}
	if len(lists) == 0 {
		return nil
	}
	if n.asked == nil {
		n.asked = map[string]int{}
	}
	key := fmt.Sprint(name, kind)
	i := min(n.asked[key], len(lists)-1)
	n.asked[key]++
	return lists[i]
}

// victim is a server on loopback that nobody must reach.
type victim struct {
	*httptest.Server
	reached atomic.Int32
	port    uint16
}

func newVictim(t *testing.T) *victim {
	v := &victim{}
	v.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(png(100)) }))
	v.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			v.reached.Add(1)
		}
	}
	v.Start()
	t.Cleanup(v.Close)
	v.port = netip.MustParseAddrPort(v.Listener.Addr().String()).Port()
	return v
}

// forbidden are addresses that no file is fetched from, whatever name has them.
var forbidden = []string{
	"0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
	"127.0.0.1", "127.0.0.2", "127.255.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
	"192.0.0.1", "192.0.0.170", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255",
	"198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.0.251", "239.255.255.250", "240.0.0.1", "250.1.2.3", "255.255.255.254", "255.255.255.255",
	"::", "::1", "::2", "::7f00:1", "::a9fe:a9fe", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
	"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::7f00:1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1",
	"2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:c0a8:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254",
	"fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff05::2",
}

func TestNameWithForbiddenAddressIsRefused(t *testing.T) {
	if len(forbidden) < 60 {
		t.Fatalf("%d addresses, want 60 or more", len(forbidden))
	}
	b := open(t, "mem://")
	for _, address := range forbidden {
		dns := &names{answers: map[string][][]string{"cdn.test": {{address}}}}
		f := blob.NewFetcherWith(blob.FetchConfig{Bucket: b}, dns.resolver(), 80, 443)
		fetchRefused(t, f, "https://cdn.test/x.png")
		if len(dns.asked) == 0 {
			t.Fatalf("%s: refused without asking for the name", address)
		}
	}
}

func TestForbiddenURLIsRefused(t *testing.T) {
	v := newVictim(t)
	b := open(t, "mem://")
	dns := &names{answers: map[string][][]string{"*": {{"127.0.0.1", "::1"}}}}
	// The victim's port is one of the world's here, so that only addresses protect it.
	f := blob.NewFetcherWith(blob.FetchConfig{Bucket: b, AllowHosts: []string{"127.0.0.1:1", "sim.test:2"}}, dns.resolver(), 80, 443, v.port)
	var urls []string
	for _, a := range forbidden {
		urls = append(urls, "https://"+net.JoinHostPort(a, fmt.Sprint(v.port))+"/x.png")
	}
	for _, host := range []string{
		"localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "metadata", "metadata.google.internal", "a.localhost", "cdn.test",
		"127.0.0.1.nip.test", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "0", "127.0.0.1.", "017700000001", "127.0.0.01",
		"127。0。0。1", "127．0．0．1", "①②⑦.⓪.⓪.①", "ｌｏｃａｌｈｏｓｔ", "locaⅼhost", "%31%32%37.0.0.1", "127.0.0.1%2f", "127.0.0.1%00.test",
		"[::1%25lo]", "[::1%lo]", "[fe80::1%25eth0]", "[::ffff:127.0.0.1%25lo]", "[0:0:0:0:0:0:0:1]", "[::ffff:8.8.8.8]", "[::127.0.0.1]", "[::1", "[]", "[localhost]", "a..b", ".", "a b",
		"user@127.0.0.1", "user:pass@cdn.test", "cdn.test@127.0.0.1", "@127.0.0.1", "127.0.0.1#@cdn.test", "127.0.0.1\\@cdn.test", "cdn.test\\.127.0.0.1",
		"127.0.0.1\t", "127.0.0.1\r\nX: y", "\x00", strings.Repeat("a.", 130) + "test",
	} {
		urls = append(urls, "https://"+host+fmt.Sprintf(":%d/x.png", v.port), "https://"+host+"/x.png")
	}
	urls = append(urls,
		"", "x", "/x.png", "//cdn.test/x.png", "https:", "https:/x", "https://", "https:///x", "https:cdn.test/x", "https://:443/x", "http://cdn.test/x.png", "HTTP://cdn.test/",
		"ftp://cdn.test/", "file:///etc/passwd", "gopher://127.0.0.1:70/_x", "data:,x", "javascript:alert(1)", "unix:///var/run/docker.sock", "ws://cdn.test/", "dict://127.0.0.1:11211/",
		"https+unix://cdn.test", " https://cdn.test", "https://cdn.test:22/", "https://cdn.test:8080/", "https://cdn.test:0/", "https://cdn.test:65536/", "https://cdn.test:-1/", "https://cdn.test:x/",
		"https://cdn.test:443x/", "https://8.8.8.8:25/", "https://cdn.test/"+strings.Repeat("a", events.MaxURL),
		"http://127.0.0.1/", "http://127.0.0.1:2/", "http://sim.test:1/", "http://sim.test/", "http://sim.test.:2/", "http://user@sim.test:2/", "ftp://x@127.0.0.1:1/", v.URL,
	)
	for _, u := range urls {
		fetchRefused(t, f, u)
	}
	if n := v.reached.Load(); n != 0 {
		t.Errorf("%d connections reached loopback", n)
	}
	if len(urls) < 60 {
		t.Errorf("%d URLs, want 60 or more", len(urls))
	}
}

func fetchRefused(t *testing.T, f *blob.Fetcher, url string) {
	t.Helper()
	_, err := f.Fetch(t.Context(), url, anID, 0)
	if fe, ok := errors.AsType[*blob.FetchError](err); !ok || fe.Code != events.CodeFetchForbid {
		t.Errorf("%.100q: %v; want it refused", url, err)
	}
}

// The counterpart of the refusals: what is refused above would have arrived.
func TestOwnHostIsFetchedFrom(t *testing.T) {
	v := newVictim(t)
	dns := &names{answers: map[string][][]string{"sim.test": {{"127.0.0.1"}}, "meta.test": {{"169.254.169.254"}}}}
	port := fmt.Sprint(v.port)
	f := blob.NewFetcherWith(blob.FetchConfig{
		Bucket: open(t, "mem://"), AllowHosts: []string{v.Listener.Addr().String(), "Sim.test:" + port, "meta.test:" + port},
	}, dns.resolver(), 80, 443)
	for _, u := range []string{v.URL + "/x.png", "http://sim.test:" + port + "/x.png", "http://SIM.TEST:" + port + "/x.png"} {
		file, err := f.Fetch(t.Context(), u, anID, 0)
		if err != nil || file.Size != 100 {
			t.Errorf("%s: %+v, %v", u, file, err)
		}
	}
	if v.reached.Load() == 0 {
		t.Error("nobody was asked")
	}
	fetchRefused(t, f, "http://meta.test:"+port+"/latest/meta-data/") // not even for the operator
	fetchRefused(t, f, "http://localhost:"+port+"/x.png")
}

func TestRedirectIsCheckedLikeAURL(t *testing.T) {
	v := newVictim(t)
	port := fmt.Sprint(v.port)
	var target atomic.Value
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", target.Load().(string))
		w.WriteHeader(http.StatusFound)
	}))
	defer first.Close()
	dns := &names{answers: map[string][][]string{"*": {{"127.0.0.1"}}}}
	own := []string{first.Listener.Addr().String()}
	f := blob.NewFetcherWith(blob.FetchConfig{Bucket: open(t, "mem://"), AllowHosts: own}, dns.resolver(), 80, 443, v.port)
	for _, to := range []string{
		"https://127.0.0.1:" + port + "/", "https://[::1]:" + port + "/", "https://inner.test:" + port + "/", "https://localhost:" + port + "/",
		v.URL, "//127.0.0.1:" + port + "/", "http://inner.test:" + port + "/", "https://u:p@inner.test/", "file:///etc/passwd", "https://inner.test:22/",
	} {
		target.Store(to)
		fetchRefused(t, f, first.URL)
	}
	if n := v.reached.Load(); n != 0 {
		t.Errorf("%d connections reached the target", n)
	}
	// The same redirect is followed where it may go.
	f = blob.NewFetcher(blob.FetchConfig{Bucket: open(t, "mem://"), AllowHosts: append(own, v.Listener.Addr().String())})
	target.Store(v.URL)
	if _, err := f.Fetch(t.Context(), first.URL, anID, 0); err != nil || v.reached.Load() == 0 {
		t.Errorf("redirect to a permitted host: %v, %d connections", err, v.reached.Load())
	}
}

// A name that is harmless when it is looked at and loopback when it is dialled.
func TestRebindingIsRefused(t *testing.T) {
	v := newVictim(t)
	dns := &names{answers: map[string][][]string{"rebind.test": {{"8.8.8.8"}, {"127.0.0.1"}}}}
	resolver := dns.resolver()
	looked, err := resolver.LookupNetIP(t.Context(), "ip4", "rebind.test")
	if err != nil || len(looked) != 1 || looked[0].Unmap() != netip.MustParseAddr("8.8.8.8") {
		t.Fatalf("first look: %v, %v", looked, err)
	}
	f := blob.NewFetcherWith(blob.FetchConfig{Bucket: open(t, "mem://")}, resolver, 443, v.port)
	for range 3 {
		fetchRefused(t, f, fmt.Sprintf("https://rebind.test:%d/x.png", v.port))
	}
	if n := v.reached.Load(); n != 0 {
		t.Errorf("%d connections reached loopback", n)
	}
}
