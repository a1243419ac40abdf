package sim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Config says how a simulated provider behaves.
type Config struct {
	Seed     uint64            // of all chance
	BaseURL  func() string     // where the URLs of files point: the address of the handler's root, without a slash at the end
	Key      string            // the Bearer token that calls must bring; empty = any
	Webhooks http.RoundTripper // sends webhooks; nil = a transport of its own
	Inputs   http.RoundTripper // fetches input files by their address; nil = none is fetched, and the address stands for the file
	Journal  string            // file of the journal; empty = in memory only
	Latency  Range             // from acceptance to the made output; zero = 200 ms to 2 s
	Faults   Faults
}

// Range is a span of time to choose from, evenly.
type Range struct{ Min, Max time.Duration }

// Faults are the rates, 0 to 1, at which things go wrong by chance.
type Faults struct {
	// Of create calls. At most one befalls a call; they are tried in this order.
	Busy, Broken, Stall, Refused, Ambiguous, Hang float64
	Sync                                          float64 // answered with the finished outputs

	Failing float64 // tasks that fail

	// Of webhooks.
	Lost, Late, Doubled, Reordered, Flat float64
	LateBy                               Range // zero = 2 s to 30 s

	// Of files. Cut and Endless spoil the first download only.
	Expiring, Trickle, Cut, Endless, Mistyped float64
	ExpireAfter                               Range // zero = 1 s to 10 s
}

// Server is a running simulated provider. It implements http.Handler.
type Server struct {
	cfg     Config
	hooks   *http.Client
	painter painter

	alive context.Context // until Close
	kill  context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex // guards all below, and the order of the journal
	journal *journal
	tasks   map[string]*task
	calls   int            // create calls so far
	repeats map[string]int // create calls by their first task
	account int            // HTTP code of the trouble with the account, 0 = none
	closed  bool
}

// New starts a provider, with the tasks of its journal if there is one. The
// error is that of the journal. A nil BaseURL panics.
func New(cfg Config) (*Server, error) {
	if cfg.BaseURL == nil {
		panic("sim: no BaseURL")
	}
	cfg.Latency = cfg.Latency.or(200*time.Millisecond, 2*time.Second)
	cfg.Faults.LateBy = cfg.Faults.LateBy.or(2*time.Second, 30*time.Second)
	cfg.Faults.ExpireAfter = cfg.Faults.ExpireAfter.or(time.Second, 10*time.Second)
	if cfg.Webhooks == nil {
		cfg.Webhooks = &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second}
	}
	s := &Server{
		cfg: cfg, tasks: map[string]*task{}, repeats: map[string]int{},
		hooks: &http.Client{Transport: cfg.Webhooks, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // Runware follows none
		}},
	}
	s.alive, s.kill = context.WithCancel(context.Background())
	j, entries, err := openJournal(cfg.Journal)
	if err != nil {
		s.kill()
		return nil, err
	}
	s.journal = j
	s.restore(entries)
	return s, nil
}

func (r Range) or(low, high time.Duration) Range {
	if r == (Range{}) {
		return Range{low, high}
	}
	return r
}

// Close ends all goroutines and waits for them; calls that are waiting get no
// answer, as if the process had died. The error is the first one of the journal.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.kill()
	s.wg.Wait()
	s.hooks.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.close()
}

// SetAccount puts the account in trouble: until it is called with 0, every
// create call is answered with this HTTP code (401, 402 or 403).
func (s *Server) SetAccount(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account = code
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.alive.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	switch {
	case r.Method == http.MethodPost:
		s.api(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case strings.HasPrefix(r.URL.Path, "/files/"):
		s.file(w, r)
	case r.URL.Path == "/journal":
		w.Header().Set("Content-Type", "application/x-ndjson")
		if err := s.WriteJournal(w); err != nil {
			panic(http.ErrAbortHandler)
		}
	default:
		http.NotFound(w, r)
	}
}

// errClosed is why nothing is taken any more.
var errClosed = errors.New("the simulated provider is closed")

// sleep waits until a time. It reports false if the provider was closed before.
func (s *Server) sleep(until time.Time) bool {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.alive.Done():
		return false
	}
}

// note writes to the journal. Its first error is kept for Close; the caller holds mu.
func (s *Server) note(e Entry) error {
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	if err := s.journal.add(e); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}
