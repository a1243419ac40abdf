package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// put sends one request; code 0 is no answer.
func (f *filled) put(ctx context.Context, id events.ID, count int) (code int, problem, after string) {
	body := fmt.Sprintf(`{"model":"runware:101@1","count":%d,"input":{"positivePrompt":"disk","width":64,"height":64}}`, count)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, f.api.base+"/v1/generations/"+string(id), strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := f.api.http.Do(req)
	if err != nil {
		return 0, err.Error(), ""
	}
	defer drain(res.Body)
	var p struct{ Type, Detail string }
	_ = json.NewDecoder(res.Body).Decode(&p) // of an answer that is cut, the code is enough
	return res.StatusCode, p.Type + ": " + p.Detail, res.Header.Get("Retry-After")
}

// refusing wants new creates refused, and why.
func (f *filled) refusing() {
	f.t.Helper()
	f.eventually("creates are not refused for want of room", func() (string, bool) {
		code, problem, _ := f.put(f.t.Context(), streamtest.NewID(), 1)
		return fmt.Sprint(code, problem), code == http.StatusServiceUnavailable && strings.Contains(problem, "no-room") && strings.Contains(problem, "disk")
	})
	f.named()
}

// named wants both health answers to name the disk.
func (f *filled) named() {
	f.t.Helper()
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		if f.mode == fullUnguarded { // nobody measures: it is known from the first refused write on
			continue
		}
		f.eventually(path+" does not name the disk", func() (string, bool) {
			code, reasons := f.health(path)
			seen := fmt.Sprint(code, reasons)
			return seen, code == want && strings.Contains(seen, "disk")
		})
	}
}

// healthy wants no reasons any more.
func (f *filled) healthy() {
	f.t.Helper()
	for _, path := range []string{"/healthz", "/readyz"} {
		f.eventually(path+" is not well again", func() (string, bool) {
			code, reasons := f.health(path)
			return fmt.Sprint(code, reasons), code == http.StatusOK && len(reasons) == 0
		})
	}
}

func (f *filled) health(path string) (code int, reasons []string) {
	res, err := f.api.http.Get(f.api.base + path)
	if err != nil {
		return 0, nil
	}
	defer drain(res.Body)
	var h struct{ Reasons []string }
	_ = json.NewDecoder(res.Body).Decode(&h)
	return res.StatusCode, h.Reasons
}

// creates wants creates taken again.
func (f *filled) creates(ctx context.Context) {
	f.t.Helper()
	id := streamtest.NewID()
	f.eventually("no create is taken, although there is room", func() (string, bool) {
		code, problem, _ := f.put(ctx, id, 1)
		if code == http.StatusAccepted {
			f.mu.Lock()
			f.acked[id] = true
			f.mu.Unlock()
		}
		return fmt.Sprint(code, problem), code == http.StatusAccepted
	})
}

// reads wants what was acknowledged before to be readable, and lists to be answered.
func (f *filled) reads(ids []events.ID) {
	f.t.Helper()
	for _, id := range ids {
		var g struct{ ID events.ID }
		if err := f.api.get(f.t.Context(), "/v1/generations/"+string(id), &g); err != nil || g.ID != id {
			f.t.Errorf("generation=%s cannot be read while the disk is full: %v", id, err)
		}
	}
	var list struct{ Generations []any }
	if err := f.api.get(f.t.Context(), "/v1/generations", &list); err != nil {
		f.t.Errorf("lists are not answered while the disk is full: %v", err)
	}
}

func (f *filled) ids() (ids []events.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.acked {
		ids = append(ids, id)
	}
	return ids
}

// completes wants all of them in the log as completed.
func (f *filled) completes(ids []events.ID, when string) {
	f.t.Helper()
	until := time.Now().Add(90 * time.Second)
	for _, id := range ids {
		for {
			var g struct {
				CompletedAt *time.Time `json:"completed_at"`
			}
			err := f.api.get(f.t.Context(), "/v1/generations/"+string(id), &g)
			if err == nil && g.CompletedAt != nil {
				break
			}
			if time.Now().After(until) {
				f.t.Fatalf("generation=%s is not completed %s: %v\n%s\nits events: %s", id, when, err, f.said.all(), f.events(id))
			}
			<-time.After(20 * time.Millisecond)
		}
	}
}

func (f *filled) events(id events.ID) string {
	res, err := f.api.do(f.t.Context(), http.MethodGet, "/v1/generations/"+string(id)+"/events", nil)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body) // for a person to look at: what there is
	var all struct{ Events []struct{ Type string } }
	_ = json.Unmarshal(b, &all)
	return fmt.Sprint(all.Events)
}

func (f *filled) eventually(complaint string, look func() (seen string, ok bool)) {
	f.t.Helper()
	for until := time.Now().Add(40 * time.Second); ; <-time.After(20 * time.Millisecond) {
		seen, ok := look()
		if ok {
			return
		}
		if time.Now().After(until) {
			f.t.Fatalf("%s, the last answer is %s\n%s", complaint, seen, f.said.all())
		}
	}
}

// logLines is what a program says.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// has says whether the text is anywhere in it.
func (l *logLines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// all is the last of it, without the lines that each webhook and generation has.
func (l *logLines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(l.text.String()) {
		if !strings.Contains(line, "msg=webhook") && !strings.Contains(line, "generation put off") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
