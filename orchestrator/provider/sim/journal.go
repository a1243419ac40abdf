package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// The kinds of entries.
const (
	KindCreate  = "create"  // a create call came: Call, Tasks, Fault, HTTP
	KindTaken   = "taken"   // a task was taken: Task, Call, Order, Ready
	KindRefused = "refused" // a task was not: Task, Call, Code
	KindOutput  = "output"  // an output was made, or failed: Task, and Code or else Seed, Cost, Size, SHA256, Expires
	KindFile    = "file"    // a file was asked for: Task, HTTP, Size as sent, Fault
	KindWebhook = "webhook" // a webhook was sent: Task, Copy, Try, HTTP as answered (0 = no answer), Fault
)

// Entry is one line of the journal. Which fields are set depends on Kind.
type Entry struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`
	Task    string    `json:"task,omitempty"`
	Call    int       `json:"call,omitempty"`  // number of the create call, from 1
	Tasks   []string  `json:"tasks,omitempty"` // of the call, in its order
	Order   *Order    `json:"order,omitempty"`
	Ready   time.Time `json:"ready,omitzero"`   // when the output is made
	Code    string    `json:"code,omitempty"`   // error code
	Seed    string    `json:"seed,omitempty"`   // decimal
	Cost    int64     `json:"cost,omitempty"`   // billionths of a dollar
	Size    int64     `json:"size,omitempty"`   // bytes
	SHA256  string    `json:"sha256,omitempty"` // lower-case hex
	Expires time.Time `json:"expires,omitzero"` // when the file stops being served
	Copy    int       `json:"copy,omitempty"`   // which of several webhooks for one output, from 1
	Try     int       `json:"try,omitempty"`    // of that webhook, from 1
	HTTP    int       `json:"http,omitempty"`   // code of the answer; 0 = none
	Fault   string    `json:"fault,omitempty"`  // what went wrong on purpose, or with a webhook
}

// Order is what a task asked for.
type Order struct {
	Task       string `json:"task"`
	Type       string `json:"type"`
	Model      string `json:"model"`
	Prompt     string `json:"prompt,omitempty"`
	Width      int    `json:"width"`
	Height     int    `json:"height"`
	Seed       uint64 `json:"seed"`
	OutputType string `json:"output_type"`
	WithCost   bool   `json:"with_cost,omitempty"`
	TTL        int64  `json:"ttl,omitempty"`     // seconds; 0 = for good
	Webhook    string `json:"webhook,omitempty"` // absent from what is served: there may be a token in it
	Place      int    `json:"place"`             // in the call, from 1

	Inputs []string `json:"inputs,omitempty"` // SHA-256 of each file that it was given, in the order of the request
}

// ReadJournal reads entries, one per line, to the end of r.
func ReadJournal(r io.Reader) ([]Entry, error) {
	var out []Entry
	d := json.NewDecoder(r)
	for {
		var e Entry
		switch err := d.Decode(&e); {
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("read journal line %d: %w", len(out)+1, err)
		}
		out = append(out, e)
	}
}

// Line is what a journal says of one task in the end.
type Line struct {
	Taken    int    // times that it was taken; more than 1 would be a double purchase
	Asked    int    // create calls that named it
	Code     string // of its failure, or else of its last refusal
	Output   *Entry // a good one
	Files    int    // downloads that were served whole
	Webhooks int    // answered with 2xx
}

// Ledger is a journal by task.
func Ledger(entries []Entry) map[string]Line {
	out := map[string]Line{}
	for _, e := range entries {
		l := out[e.Task]
		switch e.Kind {
		case KindCreate:
			for _, t := range e.Tasks {
				l := out[t]
				l.Asked++
				out[t] = l
			}
			continue
		case KindTaken:
			l.Taken++
			l.Code = ""
		case KindRefused:
			l.Code = e.Code
		case KindOutput:
			if l.Code = e.Code; e.Code == "" {
				l.Output = &e
			}
		case KindFile:
			if e.HTTP == 200 && (e.Fault == "" || e.Fault == "trickle" || e.Fault == "mistype") {
				l.Files++
			}
		case KindWebhook:
			if e.HTTP/100 == 2 {
				l.Webhooks++
			}
		}
		out[e.Task] = l
	}
	return out
}

// Bill is the sum of all costs, in billionths of a dollar.
func Bill(entries []Entry) int64 {
	var sum int64
	for _, e := range entries {
		if e.Kind == KindOutput {
			sum += e.Cost
		}
	}
	return sum
}

// WriteJournal writes what the journal holds by now, in the form that
// ReadJournal takes, without the addresses of webhooks.
func (s *Server) WriteJournal(w io.Writer) error {
	s.mu.Lock()
	r, err := s.journal.snapshot()
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	defer r.Close()
	d, e := json.NewDecoder(r), json.NewEncoder(w)
	for {
		var entry Entry
		if err := d.Decode(&entry); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		if entry.Order != nil {
			entry.Order.Webhook = ""
		}
		if err := e.Encode(entry); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
}

// journal is append-only. Its callers see to it that one of them is in it at a time.
type journal struct {
	file   *os.File // nil = in memory
	memory []byte
	size   int64 // bytes of the file
	failed error // the first one; nothing is written after it
}

// openJournal opens or makes the file, and reads what it holds. A last line
// that a killed process left unfinished is cut off: nothing outside rests on it.
func openJournal(path string) (*journal, []Entry, error) {
	if path == "" {
		return &journal{}, nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	j := &journal{file: f}
	entries, err := j.load()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
	}
	return j, entries, nil
}

func (j *journal) load() ([]Entry, error) {
	var entries []Entry
	in := bufio.NewReader(j.file)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
		j.size += int64(len(line))
	}
	if err := j.file.Truncate(j.size); err != nil {
		return nil, err
	}
	_, err := j.file.Seek(j.size, io.SeekStart)
	return entries, err
}

func (j *journal) add(e Entry) error {
	if j.failed != nil {
		return j.failed
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic("sim: an entry does not marshal: " + err.Error())
	}
	b = append(b, '\n')
	if j.file == nil {
		j.memory = append(j.memory, b...)
		return nil
	}
	if _, err := j.file.Write(b); err != nil {
		j.failed = err
		return err
	}
	j.size += int64(len(b))
	return nil
}

// snapshot is the journal as it is now; it may be read while more is added.
func (j *journal) snapshot() (io.ReadCloser, error) {
	if j.file == nil {
		return io.NopCloser(bytes.NewReader(j.memory)), nil
	}
	f, err := os.Open(j.file.Name())
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, j.size), f}, nil
}

func (j *journal) close() error {
	err := j.failed
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
	}
	return err
}
