package floor

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// feed is what has entered the catalog, in order.
type feed struct {
	mu      sync.Mutex // guards what follows
	ids     []string
	changed chan struct{} // closed when ids grows
}

func newFeed() *feed { return &feed{changed: make(chan struct{})} }

func (f *feed) add(rows []Row) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rows {
		f.ids = append(f.ids, r.ID)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// changes answers when there is something, or after the wait.
func (f *feed) changes(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	after, err := strconv.Atoi(query.Get("after"))
	limit, err2 := strconv.Atoi(query.Get("limit"))
	wait, err3 := time.ParseDuration(query.Get("wait"))
	if err != nil || err2 != nil || err3 != nil || after < 0 || limit < 1 {
		http.Error(w, "after, limit or wait is wrong", http.StatusUnprocessableEntity)
		return
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	found, waiting := f.since(after, limit)
	for open := true; len(found) == 0 && open; {
		select {
		case <-waiting:
			found, waiting = f.since(after, limit)
		case <-over.C:
			open = false
		case <-r.Context().Done():
			return
		}
	}
	var b bytes.Buffer
	b.WriteString(`{"generations":[`)
	for i, id := range found {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"id":"` + id + `"}`)
	}
	fmt.Fprintf(&b, `],"next":%d}`+"\n", after+len(found))
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b.Bytes())
}

func (f *feed) since(after, limit int) ([]string, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ids[min(after, len(f.ids)):min(after+limit, len(f.ids))], f.changed
}
