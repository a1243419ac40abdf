package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector/api"
)

func TestForeignHostIsMisdirected(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.Hosts = []string{"gen.example.com", "proxy.example.com:8443"} })
	for host, ok := range map[string]bool{
		"localhost": true, "localhost:1234": true, "LOCALHOST.": true, "app.localhost": true,
		"127.0.0.1": true, "127.9.9.9:80": true, "[::1]": true, "[::1]:8080": true,
		"gen.example.com": true, "GEN.example.com:443": true, "gen.example.com.": true,
		"proxy.example.com:8443": true,
		"evil.example.com":       false, "gen.example.com.evil.com": false, "localhost.evil.com": false, "127.0.0.1.nip.io": false,
		"192.168.1.5": false, "169.254.169.254": false, "0.0.0.0": false, "[fe80::1]": false, "2130706433": false,
	} {
		for _, path := range []string{"/", "/v1/generations", "/healthz", "/nothing"} {
			a := w.get(path, "Host", host)
			if ok && a.code == http.StatusMisdirectedRequest {
				t.Errorf("%s %s is refused", host, path)
			}
			if !ok {
				a.mustBe(t, 421, "misdirected")
			}
		}
	}
}

func TestOtherSitesMayNotWrite(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		headers []string
		refused bool
	}{
		{nil, false},
		{[]string{"Origin", w.server.URL}, false},
		{[]string{"Sec-Fetch-Site", "same-origin"}, false},
		{[]string{"Origin", "https://evil.example.com"}, true},
		{[]string{"Origin", "null"}, true},
		{[]string{"Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"}, true},
		{[]string{"Sec-Fetch-Site", "same-site"}, true},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			path := "/v1/generations"
			if method == http.MethodPut {
				path += "/" + string(streamtest.NewID())
			}
			a := w.do(method, path, body, c.headers...)
			if c.refused {
				a.mustBe(t, 403, "cross-origin")
			} else {
				a.mustBe(t, 503, "unavailable") // it came as far as NATS
			}
		}
		if a := w.get("/v1/generations", c.headers...); a.code != 200 || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("reading with %v: %d %v", c.headers, a.code, a.header)
		}
	}
}

func TestKeyIsNeeded(t *testing.T) {
	const alice, bob = "alice-0123456789", "bob-0123456789abc"
	keys, err := api.ParseKeys(strings.NewReader("# team\nalice " + alice + "\n\n  bob\t" + bob + "  \n"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *api.Config) { c.Keys, c.Metrics = keys, http.NotFoundHandler() })
	id := string(streamtest.NewID())
	for _, path := range []string{
		"/", "/?key=wrong-0123456789", "/g/" + id, "/metrics", "/nothing", "/v1/generations", "/v1/generations/" + id, "/v1/generations/" + id + "/events",
		"/v1/events", "/v1/artifacts", "/v1/artifacts/" + id + "-0", "/v1/artifacts/" + id + "-0/content", "/v1/changes", "/v1/counts", "/v1/open",
		"/v1/generations?key=" + alice, "//v1/generations", "/healthz/../v1/generations", "/assets/../v1/generations",
	} {
		for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer wrong-0123456789", "bearer-" + alice, "Basic " + alice, "Bearer " + alice[1:]} {
			a := w.get(path, "Authorization", authorization)
			if a.code == http.StatusMovedPermanently || a.code == http.StatusTemporaryRedirect {
				continue // the mux cleans the path and shows nothing
			}
			a.mustBe(t, 401, "unauthorized")
			if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: no WWW-Authenticate", path)
			}
		}
	}
	w.do(http.MethodPost, "/v1/generations", body).mustBe(t, 401, "unauthorized")
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/assets/style.css"} {
		if a := w.get(path); a.code != 200 {
			t.Errorf("%s needs a key", path)
		}
	}
	for _, secret := range []string{alice, bob} {
		if a := w.get("/v1/generations", "Authorization", "Bearer "+secret); a.code != 200 {
			t.Errorf("a key is refused: %d", a.code)
		}
	}
}

func TestPageTradesItsKeyForACookie(t *testing.T) {
	const secret = "alice-0123456789"
	keys, err := api.ParseKeys(strings.NewReader("alice " + secret))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *api.Config) { c.Keys = keys })
	a := w.get("/", "Accept", "text/html")
	if a.code != 401 || !strings.Contains(a.body, "/?key=") || !strings.Contains(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("a person without a key is told %d %s", a.code, a.body)
	}
	a = w.get("/?key=" + secret)
	cookie := a.header.Get("Set-Cookie")
	if a.code != http.StatusSeeOther || a.header.Get("Location") != "/" || strings.Contains(cookie, secret) ||
		!strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Fatalf("answered %d %v", a.code, a.header)
	}
	cookie, _, _ = strings.Cut(cookie, ";")
	for _, path := range []string{"/", "/v1/generations"} {
		if a := w.get(path, "Cookie", cookie); a.code != 200 {
			t.Errorf("%s with the cookie: %d", path, a.code)
		}
	}
	w.do(http.MethodPost, "/v1/generations", body, "Cookie", cookie).mustBe(t, 401, "unauthorized") // it reads only
	w.get("/v1/generations", "Cookie", cookie[:len(cookie)-3]+"AAA").mustBe(t, 401, "unauthorized")
	w.get("/v1/generations", "Cookie", "genstream_page="+secret).mustBe(t, 401, "unauthorized")
}

func TestMalformedKeyFileIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, has string }{
		"Empty":    {"\n# nothing\n", "no key"},
		"NoName":   {"0123456789abcdef\n", "line 1"},
		"Short":    {"ok 0123456789abcdef\nalice 0123456789abcde\n", "line 2"},
		"Three":    {"alice 0123456789abcdef x\n", "line 1"},
		"BadName":  {"al:ice 0123456789abcdef\n", "line 1"},
		"LongName": {strings.Repeat("a", 65) + " 0123456789abcdef\n", "line 1"},
		"Twice":    {"alice 0123456789abcdef\nbob 0123456789abcdef", "line 2"},
		"LongLine": {"alice " + strings.Repeat("x", 70_000), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := api.ParseKeys(strings.NewReader(c.file))
			if !errors.Is(err, api.ErrKeys) || !strings.Contains(err.Error(), c.has) || strings.Contains(err.Error(), "0123456789") {
				t.Errorf("error is %v, want %q in it and no key", err, c.has)
			}
		})
	}
}

func TestHeadersOfEveryRoute(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up 1") })
	})
	m := w.whole(1)
	const (
		plain = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		page  = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		file  = "sandbox; default-src 'none'"
	)
	id := string(m.id)
	for path, want := range map[string][3]string{
		"/":                                  {page, "text/html; charset=utf-8", "no-store"},
		"/g/" + id:                           {page, "text/html; charset=utf-8", "no-store"},
		"/g/nothing":                         {page, "text/html; charset=utf-8", "no-store"},
		"/assets/style.css":                  {plain, "text/css; charset=utf-8", "no-cache"},
		"/assets/live.js":                    {plain, "text/javascript; charset=utf-8", "no-cache"},
		"/assets/icon.svg":                   {plain, "image/svg+xml", "no-cache"},
		"/openapi.json":                      {plain, "application/openapi+json", "no-cache"},
		"/healthz":                           {plain, "application/json", "no-store"},
		"/readyz":                            {plain, "application/json", "no-store"},
		"/metrics":                           {plain, "text/plain; charset=utf-8", "no-store"},
		"/nothing":                           {plain, "application/problem+json", "no-store"},
		"/v1/generations":                    {plain, "application/json", "no-store"},
		"/v1/generations?x":                  {plain, "application/problem+json", "no-store"},
		"/v1/generations/" + id:              {plain, "application/json", "private, max-age=3600"},
		"/v1/generations/" + id + "/events":  {plain, "application/json", "private, max-age=3600"},
		"/v1/artifacts":                      {plain, "application/json", "no-store"},
		"/v1/artifacts/" + id + "-0":         {plain, "application/json", "no-store"},
		"/v1/artifacts/" + id + "-0/content": {file, "image/png", "public, max-age=31536000, immutable"},
		"/v1/artifacts/" + id + "-1/content": {plain, "application/problem+json", "no-store"},
		"/v1/changes":                        {plain, "application/json", "no-store"},
		"/v1/counts":                         {plain, "application/json", "no-store"},
		"/v1/open":                           {plain, "application/json", "no-store"},
	} {
		h := w.get(path).header
		for name, value := range map[string]string{
			"Content-Security-Policy": want[0], "Content-Type": want[1], "Cache-Control": want[2],
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if h.Get(name) != value {
				t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), value)
			}
		}
		for name := range h {
			if strings.HasPrefix(name, "Access-Control-") || name == "Server" {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
	}
}

func TestHealthSaysWhy(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		c.Health = func() error { return nil }
		c.Ready = func() error {
			return errors.Join(errors.New("the log is full"), errors.Join(errors.New("the circuit of runware is open")))
		}
	})
	if a := w.get("/healthz"); a.code != 200 || a.body != `{"ready":true,"reasons":[]}`+"\n" {
		t.Errorf("healthz %d %s", a.code, a.body)
	}
	if a := w.get("/readyz"); a.code != 503 || a.body != `{"ready":false,"reasons":["the log is full","the circuit of runware is open"]}`+"\n" {
		t.Errorf("readyz %d %s", a.code, a.body)
	}
}
