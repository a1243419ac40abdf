// Package floor is the bare program that genstream is compared with: it makes
// generations as a careful person would write it down who has nothing else to
// promise. What it costs is what cannot be saved.
//
// # What it does
//
// A request comes by HTTP, is appended to a log, and is answered once the log is on
// disk; then the provider is called by HTTP, once, with all tasks. A webhook comes
// by HTTP with a token in its path; its file is written, what came of it is appended,
// and it is answered once both are on disk. With the last output the generation is
// completed, in the same append, and its rows go to SQLite, as many per transaction
// as have come. A long poll tells who waits for rows.
//
// So a generation of N outputs is 1+N appends, N files and N+1 rows, and nothing is
// answered, called or shown before it is on disk: the same promise as the product's.
//
// # How it is made fast
//
// All appends and all files share one sync (see journal): a sync begins when
// the one before has ended, with everything that has come meanwhile.
//
// # What it leaves out
//
// Everything else: reading its log again, retries, deadlines, polling, limits,
// validation, duplicates after a restart, queries.
package floor

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Config says where the program keeps its data and whom it calls.
type Config struct {
	Dir      string // of everything; it must be there
	Provider string // URL of create calls
	Hooks    string // base URL of Floor.Webhooks, as the provider is told
}

// Floor is the running program.
type Floor struct {
	cfg     Config
	key     []byte // of webhook tokens
	log     *journal
	catalog *Catalog
	feed    *feed
	files   string // folder
	calls   *http.Client

	mu      sync.Mutex // guards open and what is in it
	open    map[string]*generation
	failure atomic.Pointer[error]
	going   sync.WaitGroup // calls and fetches
	rows    chan Row
	written chan struct{} // closed when rows is done with
}

// generation is one that is not completed.
type generation struct {
	row   Row
	tasks []string // by slot
	left  int      // outputs that are not there
}

// Open makes the files and begins. Close ends it.
func Open(cfg Config) (*Floor, error) {
	f := &Floor{
		cfg: cfg, key: make([]byte, 32), open: map[string]*generation{}, feed: newFeed(),
		files: filepath.Join(cfg.Dir, "files"),
		calls: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}},
		rows:  make(chan Row, 4096), written: make(chan struct{}),
	}
	if _, err := rand.Read(f.key); err != nil {
		return nil, fmt.Errorf("open floor: %w", err)
	}
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(f.files, hex.EncodeToString([]byte{byte(i)})), 0o750); err != nil {
			return nil, fmt.Errorf("open floor: %w", err)
		}
	}
	var err error
	if f.log, err = openJournal(filepath.Join(cfg.Dir, "log")); err != nil {
		return nil, fmt.Errorf("open floor: %w", err)
	}
	if f.catalog, err = OpenCatalog(filepath.Join(cfg.Dir, "catalog.db")); err != nil {
		return nil, errors.Join(fmt.Errorf("open floor: %w", err), f.log.close())
	}
	go f.project()
	return f, nil
}

// Close waits for what is under way. The error is the first that anything met.
func (f *Floor) Close() error {
	f.going.Wait()
	close(f.rows)
	<-f.written
	f.calls.CloseIdleConnections()
	return errors.Join(f.Err(), f.log.close(), f.catalog.Close())
}

// Err is the first error that anything met, nil if there was none.
func (f *Floor) Err() error {
	if err := f.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Syncs is how often the log and the files were synced, and Appends what for.
func (f *Floor) Syncs() (syncs, appends int64) { return f.log.syncs.Load(), f.log.appends.Load() }

// Counts is how many rows there are.
func (f *Floor) Counts() (generations, artifacts int) { return f.catalog.Counts() }

func (f *Floor) fail(err error) { f.failure.CompareAndSwap(nil, &err) }

// API serves POST /v1/generations and GET /v1/changes.
func (f *Floor) API() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/generations", f.create)
	mux.HandleFunc("GET /v1/changes", f.feed.changes)
	return mux
}

// Webhooks serves POST /{id}/{token}.
func (f *Floor) Webhooks() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{id}/{token}", f.webhook)
	return mux
}

func (f *Floor) create(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Model string                     `json:"model"`
		Count int                        `json:"count"`
		Input map[string]json.RawMessage `json:"input"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Model == "" || in.Count < 1 || in.Count > 20 || len(in.Input) == 0 {
		http.Error(w, "not a request", http.StatusUnprocessableEntity)
		return
	}
	id, now := newID(7), time.Now()
	input, err := json.Marshal(in.Input)
	if err != nil {
		http.Error(w, "not a request", http.StatusUnprocessableEntity)
		return
	}
	g := &generation{row: Row{ID: id, Model: in.Model, Input: input, Created: now, Outputs: make([]Output, in.Count)}, left: in.Count}
	for range in.Count {
		g.tasks = append(g.tasks, newID(4))
	}
	tasks, err := json.Marshal(g.tasks)
	if err != nil {
		panic("floor: texts cannot be encoded: " + err.Error())
	}
	f.mu.Lock()
	f.open[id] = g
	f.mu.Unlock()
	line := fmt.Appendf(nil, `{"type":"requested","id":"%s","at":%d,"model":%q,"input":%s,"tasks":%s}`+"\n", id, now.UnixMicro(), in.Model, input, tasks)
	if err := f.log.append(line); err != nil {
		f.fail(err)
		http.Error(w, "not kept", http.StatusServiceUnavailable)
		return
	}
	f.going.Go(func() { f.call(g, in.Input) })
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, `{"id":"%s","position":0}`+"\n", id)
}

// webhook takes what came of one task.
func (f *Floor) webhook(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !hmac.Equal([]byte(f.token(id)), []byte(r.PathValue("token"))) {
		http.NotFound(w, r)
		return
	}
	data, err := readResults(r)
	if err != nil || len(data) != 1 {
		http.Error(w, "not a result", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	g := f.open[id]
	f.mu.Unlock()
	if g == nil {
		return // completed: it came twice
	}
	if data[0].URL == "" {
		if err := f.keep(g, data[0]); err != nil {
			f.fail(err)
			http.Error(w, "not kept", http.StatusServiceUnavailable)
		}
		return
	}
	// A download may take longer than a provider waits, so what came is kept first.
	line := fmt.Appendf(nil, `{"type":"delivered","id":"%s","task":%q,"url":%q}`+"\n", id, data[0].Task, data[0].URL)
	if err := f.log.append(line); err != nil {
		f.fail(err)
		http.Error(w, "not kept", http.StatusServiceUnavailable)
		return
	}
	f.going.Go(func() {
		err := f.fetch(&data[0])
		if err == nil {
			err = f.keep(g, data[0])
		}
		if err != nil {
			f.fail(err)
		}
	})
}

// keep writes an output and what it means, and returns once both are on disk. A
// crash can leave the line without all of the file: a restart would compare the
// sum, and wait for the webhook that was not answered to come again.
func (f *Floor) keep(g *generation, r result) error {
	slot := -1
	for i, t := range g.tasks {
		if t == r.Task {
			slot = i
		}
	}
	if slot < 0 {
		return fmt.Errorf("generation=%s has no such task", g.row.ID)
	}
	sum := sha256.Sum256(r.File)
	name := filepath.Join(g.row.ID[len(g.row.ID)-2:], fmt.Sprintf("%s-%d.png", g.row.ID, slot))
	if err := os.WriteFile(filepath.Join(f.files, name), r.File, 0o640); err != nil {
		return err
	}
	now := time.Now()
	f.mu.Lock()
	g.row.Outputs[slot] = Output{Key: name, Seed: r.Seed.String(), Cost: r.Cost, At: now}
	g.left--
	last := g.left == 0
	if last {
		delete(f.open, g.row.ID)
		g.row.Completed = now
	}
	f.mu.Unlock()
	line := fmt.Appendf(nil, `{"type":"output_succeeded","id":"%s","at":%d,"slot":%d,"key":%q,"size":%d,"sha256":"%x","seed":%q,"cost":%d,"completed":%t}`+"\n",
		g.row.ID, now.UnixMicro(), slot, name, len(r.File), sum, r.Seed.String(), r.Cost, last)
	if err := f.log.append(line); err != nil {
		return err
	}
	if last {
		f.rows <- g.row
	}
	return nil
}

// project writes rows as they come, as many per transaction as have come.
func (f *Floor) project() {
	defer close(f.written)
	var batch []Row
	for r := range f.rows {
		batch = append(batch[:0], r)
		for more := true; more && len(batch) < 500; {
			select {
			case r, open := <-f.rows:
				if more = open; open {
					batch = append(batch, r)
				}
			default:
				more = false
			}
		}
		if err := f.catalog.Insert(context.Background(), batch); err != nil {
			f.fail(err)
			continue
		}
		f.feed.add(batch)
	}
}
