package sim

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// file serves an output's file, or spoils it.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	id, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/files/"), ".png")
	t, made := s.find(id)
	if !ok || t == nil || made == nil || made.Code != "" {
		http.NotFound(w, r)
		return
	}
	if !made.Expires.IsZero() && !time.Now().Before(made.Expires) {
		s.served(t, http.StatusNotFound, 0, "expired")
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	n := t.downloads
	t.downloads++
	s.mu.Unlock()
	body := s.painter.draw(t.Order)
	h := w.Header()
	h.Set("Content-Type", "image/png")
	switch p := t.plan; {
	case n < p.html:
		h.Set("Content-Type", "text/html")
		sent, _ := io.WriteString(w, "<!doctype html><html><body>Sign in to continue</body></html>")
		s.served(t, http.StatusOK, sent, "html")
	case n < p.endless:
		s.endless(w, r, t, body)
	case n < p.cut:
		h.Set("Content-Length", strconv.Itoa(len(body)))
		sent, _ := w.Write(body[:len(body)/2])
		s.served(t, http.StatusOK, sent, "cut")
		panic(http.ErrAbortHandler)
	case p.trickle > 0:
		h.Set("Content-Length", strconv.Itoa(len(body)))
		s.trickle(w, r, t, body)
	default:
		fault := ""
		if p.mistyped {
			fault = "mistype"
			h.Set("Content-Type", "text/plain")
		}
		h.Set("Content-Length", strconv.Itoa(len(body)))
		// Written down first: who has the last byte of it finds it in the journal.
		s.served(t, http.StatusOK, len(body), fault)
		_, _ = w.Write(body)
	}
}

func (s *Server) served(t *task, code, size int, fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.note(Entry{Kind: KindFile, Task: t.Task, HTTP: code, Size: int64(size), Fault: fault}) // Close tells
}

// trickle sends the body in ten pieces.
func (s *Server) trickle(w http.ResponseWriter, r *http.Request, t *task, body []byte) {
	const pieces = 10
	sent := 0
	for i := range pieces {
		part := body[len(body)*i/pieces : len(body)*(i+1)/pieces]
		if !s.pause(r, t.plan.trickle/pieces) {
			break
		}
		if i == pieces-1 {
			s.served(t, http.StatusOK, len(body), "trickle")
		}
		n, err := w.Write(part)
		if sent += n; err != nil {
			break
		}
		_ = http.NewResponseController(w).Flush()
	}
	if sent < len(body) {
		panic(http.ErrAbortHandler)
	}
}

// endless sends the file over and over, until nobody reads on.
func (s *Server) endless(w http.ResponseWriter, r *http.Request, t *task, body []byte) {
	chunk := bytes.Repeat(body, 1+(64<<10)/len(body))
	for sent := 0; ; {
		n, err := w.Write(chunk)
		sent += n
		if err != nil || r.Context().Err() != nil || s.alive.Err() != nil {
			s.served(t, http.StatusOK, sent, "endless")
			panic(http.ErrAbortHandler)
		}
	}
}
