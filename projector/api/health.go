package api

import (
	"bytes"
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

func (a *api) registerHealth() {
	for path, check := range map[string]struct {
		about string
		ask   func() error
		also  func() error
	}{
		"/healthz": {"Whether this process works; if not, restart it", a.cfg.Health, a.cfg.Passing},
		"/readyz":  {"Whether this process should get requests just now", a.cfg.Ready, nil},
	} {
		body := map[string]reflect.Type{"application/json": reflect.TypeFor[health]()}
		register(a, operation{
			id: path[1:], method: http.MethodGet, path: path,
			summary: check.about, about: "Needs no key.",
			answers: map[int]answer{
				http.StatusOK:                 {about: "Yes", content: body},
				http.StatusServiceUnavailable: {about: "No, and why", content: body},
			},
			problems: []kind{invalid},
		}, func(context.Context, *struct{}) (*reply, error) {
			return healthReply(check.ask, check.also)
		})
	}
	if a.cfg.Metrics == nil {
		return
	}
	register(a, operation{
		id: "metrics", method: http.MethodGet, path: "/metrics",
		summary: "Metrics of this process", about: "In the text format of Prometheus.",
		answers:  map[int]answer{http.StatusOK: {about: "The metrics", content: map[string]reflect.Type{"text/plain": nil}}},
		problems: []kind{invalid},
	}, func(context.Context, *struct{}) (*reply, error) {
		return &reply{Body: func(hc huma.Context) {
			r, w := humago.Unwrap(hc)
			a.cfg.Metrics.ServeHTTP(w, r)
		}}, nil
	})
}

// healthReply answers no for what ask says, and names what also says beside it.
func healthReply(ask, also func() error) (*reply, error) {
	h := health{Ready: true, Reasons: []string{}}
	if ask != nil {
		h.Reasons = reasons(ask())
	}
	code := http.StatusOK
	if len(h.Reasons) > 0 {
		h.Ready, code = false, http.StatusServiceUnavailable
	} else if also != nil {
		h.Reasons = reasons(also())
	}
	return jsonReply(code, func(b *bytes.Buffer) error { return encode(b, h) })
}

// reasons takes joined errors apart.
func reasons(err error) []string {
	all := []string{}
	if err == nil {
		return all
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			all = append(all, reasons(one)...)
		}
		return all
	}
	return append(all, err.Error())
}
