package api

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// guard stands before every route: security headers, then the Host header, then
// the key, then whether another site's page sent the request.
func (a *api) guard(next http.Handler) http.Handler {
	site := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		if !a.hosts.answer(r) {
			misdirected.because("the Host header names none of this server's hosts").write(w)
			return
		}
		if err := site.Check(r); err != nil {
			foreign.because("a page of another site may not change anything here").write(w)
			return
		}
		name, ok := a.admit(w, r)
		if !ok {
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // not supported: the connection has none
		ctx := context.WithValue(r.Context(), requesterKey{}, name)
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, exchange{r: r, w: w})))
	})
}

// The policies that a browser is told: nothing is loaded from an answer of the
// API, and the page loads what this server serves and nothing else.
const (
	apiPolicy  = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	filePolicy = "sandbox; default-src 'none'"
)

func secure(h http.Header) {
	h.Set("Content-Security-Policy", apiPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store") // until a route knows better
}

// hosts are the names that this server answers to. A page of another site can
// have its own name resolve to our address, and would then be of our origin in
// the browser's eyes; it cannot change the Host header that the browser sends.
type hosts []string

func (h hosts) answer(r *http.Request) bool {
	name := strings.ToLower(strings.TrimSuffix(hostOf(r.Host), "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	if slices.ContainsFunc(h, func(own string) bool { return strings.EqualFold(hostOf(own), name) || strings.EqualFold(own, r.Host) }) {
		return name != ""
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	own, err := netip.ParseAddrPort(local.String())
	return err == nil && own.Addr().Unmap().WithZone("") == ip.Unmap().WithZone("")
}

// hostOf is a Host header without its port.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

const cookieName = "genstream_page"

// admit finds who asks. It has answered already if ok is false.
func (a *api) admit(w http.ResponseWriter, r *http.Request) (name string, ok bool) {
	if a.keys == nil || open(r.URL.Path) {
		return "", true
	}
	if secret, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); given {
		if k, ok := a.keys.find(strings.TrimSpace(secret)); ok {
			return k.name, true
		}
	}
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	if reading { // the page changes nothing, so neither can its cookie
		if c, err := r.Cookie(cookieName); err == nil {
			if k, ok := a.keys.findPage(c.Value); ok {
				return k.name, true
			}
		}
		if r.URL.Path == "/" && r.URL.Query().Has("key") {
			if k, ok := a.keys.find(r.URL.Query().Get("key")); ok {
				enter(w, r, k)
				return "", false
			}
		}
	}
	a.refuse(w, r)
	return "", false
}

// open says whether a path needs no key: the probes of an orchestrating system
// bear none, and the rest is the same for everybody.
func open(path string) bool {
	return path == "/healthz" || path == "/readyz" || path == "/openapi.json" || strings.HasPrefix(path, "/assets/")
}

// enter trades the key in the address for a cookie, and the address for one without it.
func enter(w http.ResponseWriter, r *http.Request, k key) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: k.cookie(), Path: "/",
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *api) refuse(w http.ResponseWriter, r *http.Request) {
	p := unauthorized.because("send one in the Authorization header: Bearer and the key")
	if strings.HasPrefix(r.URL.Path, "/v1/") || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		p.write(w)
		return
	}
	a.showLocked(w, p)
}

// requesterKey is where the guard leaves the name of the key.
type requesterKey struct{}

// requester is the name of the key that the request came with, empty without keys.
func requester(ctx context.Context) string {
	name, _ := ctx.Value(requesterKey{}).(string)
	return name
}
