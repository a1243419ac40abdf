package api_test

import "testing"

func TestSmoke(t *testing.T) {
	w := newWorld(t)
	m := w.whole(2)
	for _, p := range []string{"/openapi.json", "/v1/generations", "/v1/artifacts", "/v1/generations/" + string(m.id), "/v1/generations/" + string(m.id) + "/events",
		"/v1/artifacts/" + string(m.id) + "-0", "/v1/artifacts/" + string(m.id) + "-0/content", "/v1/changes", "/v1/counts", "/v1/open", "/healthz", "/readyz", "/", "/g/" + string(m.id), "/nope", "/v1/generations?x=1&limit=0", "/assets/style.css"} {
		a := w.get(p)
		t.Log(p, a.code, a.header, a.body[:min(len(a.body), 1500)])
	}
}
