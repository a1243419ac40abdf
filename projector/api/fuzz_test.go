package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/projector/api"
)

// FuzzQuery: whatever stands in a query and in the headers that a read knows, the
// answer is what was asked for or a problem of the requester's, never one of ours.
func FuzzQuery(f *testing.F) {
	w := loneWorld(f)
	m := w.whole(2)
	id := string(m.id)
	paths := []string{
		"/v1/generations", "/v1/artifacts", "/v1/changes", "/v1/counts", "/v1/open", "/v1/events", "/v1/generations/" + id,
		"/v1/generations/" + id + "/events", "/v1/artifacts/" + id + "-0", "/v1/artifacts/" + id + "-0/content", "/", "/g/" + id,
	}
	for i, q := range []string{
		"model=x&failed=true&limit=200", "generation=" + id, "after=1&wait=10ms", "min_position=1", "label=user:42&from=2026-01-01T00:00:00Z",
		"after=0", "x", "cursor=AQ", "label=%00:%27&to=0001-01-01T00:00:00Z", "failed=maybe", "limit=-1&limit=2", "after=18446744073709551616",
		"from=9999-12-31T23:59:59.999999999-23:59&to=x", "cursor=%F0%9F%A6%8A", "a=%zz;b", "model=' or 1=1 --",
	} {
		f.Add(uint8(i), q, "bytes=0-9", "text/html, text/event-stream")
	}
	f.Add(uint8(9), "", "bytes=-1,5-3,9999999999999999999-", `W/"x", *`)
	f.Add(uint8(7), "", "1", "text/event-stream;q=0.1")
	f.Fuzz(func(t *testing.T, path uint8, query, small, accept string) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		r.URL = &url.URL{Path: paths[int(path)%len(paths)], RawQuery: query}
		r.RequestURI = r.URL.RequestURI()
		for _, h := range []string{"Range", "If-None-Match", "Last-Event-ID", "Prefer"} {
			r.Header.Set(h, small)
		}
		r.Header.Set("Accept", accept)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond) // a wait, or a stream
		defer cancel()
		a := httptest.NewRecorder()
		w.server.Config.Handler.ServeHTTP(a, r.WithContext(ctx))
		waited := ctx.Err() != nil // the client has left: nobody sees the answer
		switch kind := a.Header().Get("Content-Type"); {
		case a.Code >= 500 && !waited:
			t.Errorf("%s?%s: %d %s", r.URL.Path, query, a.Code, a.Body)
		case strings.HasSuffix(kind, "json") && !json.Valid(a.Body.Bytes()) && a.Body.Len() > 0:
			t.Errorf("%s?%s: %d %q", r.URL.Path, query, a.Code, a.Body)
		case a.Code >= 400 && kind == "application/problem+json" && a.Header().Get("Cache-Control") != "no-store":
			t.Errorf("%s?%s: a problem may be cached: %v", r.URL.Path, query, a.Header())
		}
		if a.Header().Get("X-Content-Type-Options") != "nosniff" || a.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s?%s: %v", r.URL.Path, query, a.Header())
		}
	})
}

// FuzzGuard: nobody gets in without a key, or under a name that is not ours.
func FuzzGuard(f *testing.F) {
	const secret = "alice-0123456789"
	keys, err := api.ParseKeys(strings.NewReader("alice " + secret))
	if err != nil {
		f.Fatal(err)
	}
	w := loneWorld(f, func(c *api.Config) { c.Keys, c.Hosts = keys, []string{"gen.example.com", "proxy.example.com:8443"} })
	cookie := w.get("/?key=" + secret).header.Get("Set-Cookie")
	cookie, _, _ = strings.Cut(strings.TrimPrefix(cookie, "genstream_page="), ";")
	f.Add("localhost", "Bearer "+secret, "", "", uint8(0))
	f.Add("127.0.0.1:8080", "", "genstream_page="+cookie, "http://localhost", uint8(0))
	f.Add("evil.example.com", "Bearer "+secret, "", "https://evil.example.com", uint8(1))
	f.Add("gen.example.com.", "bearer "+secret, "genstream_page="+secret, "", uint8(1))
	f.Add("[::1]:1", "Bearer  "+secret+" ", "genstream_page=;genstream_page="+cookie, "null", uint8(1))
	f.Add("localhost.evil.com", "Bearer", "", "", uint8(2))
	f.Fuzz(func(t *testing.T, host, authorization, cookies, origin string, way uint8) {
		method, path := http.MethodGet, "/v1/counts"
		if way%3 == 1 {
			method, path = http.MethodPost, "/v1/generations"
		}
		r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader("{}"))
		r.Host = host
		for name, value := range map[string]string{"Authorization": authorization, "Cookie": cookies, "Origin": origin} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		a := httptest.NewRecorder()
		w.server.Config.Handler.ServeHTTP(a, r.WithContext(ctx))
		if a.Code == http.StatusUnauthorized || a.Code == http.StatusMisdirectedRequest || a.Code == http.StatusForbidden {
			return
		}
		if !ours(host) {
			t.Errorf("Host %q: %d", host, a.Code)
		}
		bearer := strings.TrimSpace(strings.TrimPrefix(authorization, "Bearer ")) == secret && strings.HasPrefix(authorization, "Bearer ")
		if !bearer && (method != http.MethodGet || !strings.Contains(cookies, cookie)) {
			t.Errorf("%s with %q, %q: %d", method, authorization, cookies, a.Code)
		}
	})
}

// ours says whether a Host header names this machine, or a host that it was told.
func ours(host string) bool {
	if host == "proxy.example.com:8443" {
		return true
	}
	name := strings.ToLower(host)
	if i := strings.LastIndexByte(name, ':'); i >= 0 && (strings.Count(name, ":") == 1 || strings.Contains(name, "]:")) {
		name = name[:i]
	}
	name = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(name, "]"), "["), ".")
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || err == nil && ip.IsLoopback() ||
		slices.Contains([]string{"gen.example.com", "proxy.example.com"}, name)
}

// FuzzParseKeys: a key file is read whole or not at all, and no error repeats a key.
func FuzzParseKeys(f *testing.F) {
	f.Add("alice 0123456789abcdef\n# x\n\tbob\tfedcba9876543210\r\n")
	f.Add("alice 0123456789abcdef x")
	f.Add("\x00 \xff")
	f.Fuzz(func(t *testing.T, file string) {
		_, err := api.ParseKeys(strings.NewReader(file))
		if err == nil {
			return
		}
		for line := range strings.Lines(file) {
			if parts := strings.Fields(line); len(parts) > 1 && len(parts[1]) >= api.MinKey && strings.Contains(err.Error(), parts[1]) {
				t.Errorf("%v repeats a key", err)
			}
		}
	})
}
