package stream

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
)

// Entry is one stored commit before decoding: its headers tell most readers
// enough to pass it over.
type Entry struct {
	ID       events.ID // empty if the subject is malformed, which verify reports
	Subject  string
	Sequence uint64
	Version  uint64
	Prev     uint64
	CommitID string
	Types    string
	Digest   string
	Seen     string
	Stored   time.Time
	Body     []byte
}

// Head is the end of one generation's commits, which the next append builds on.
// The zero Head is that of an ID that has none.
type Head struct {
	Sequence uint64
	Version  uint64
	Digest   string
	Seen     string // short digests of the deliveries so far
	Done     bool   // the last commit completes
}

// Head is the head after e.
func (e Entry) Head() Head {
	return Head{Sequence: e.Sequence, Version: e.Version, Digest: e.Digest, Seen: e.Seen, Done: e.Completes()}
}

// Completes says, by the headers alone, whether e is the last commit of its generation.
func (e Entry) Completes() bool {
	return e.Types == "completed" || strings.HasSuffix(e.Types, ",completed")
}

// Decode reads the commit. The error wraps events.ErrMalformed.
func (e Entry) Decode() (events.Commit, error) {
	c := events.Commit{ID: e.ID, Version: e.Version, Sequence: e.Sequence, Prev: e.Prev}
	if e.ID == "" {
		return c, fmt.Errorf("decode commit at %d: %w: subject %q", e.Sequence, events.ErrMalformed, e.Subject)
	}
	var err error
	if c.At, c.Events, err = events.Decode(e.Body); err != nil {
		return c, fmt.Errorf("decode commit at %d: %w", e.Sequence, err)
	}
	return c, nil
}

// Last reads the last event of the commit and, if it can, no other: see
// events.DecodeLast. The error wraps events.ErrMalformed.
func (e Entry) Last() (events.Event, error) {
	if e.ID == "" {
		return nil, fmt.Errorf("decode commit at %d: %w: subject %q", e.Sequence, events.ErrMalformed, e.Subject)
	}
	last, err := events.DecodeLast(e.Body)
	if err != nil {
		return nil, fmt.Errorf("decode commit at %d: %w", e.Sequence, err)
	}
	return last, nil
}

// Chain is the digest of a commit: over the digest before it, the ID, the
// version and the body, so that a missing, altered or misplaced commit shows.
func Chain(before string, id events.ID, version uint64, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s/%s/%d/", before, id, version)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// seenLen is how much of a delivery's digest a head keeps.
const seenLen = 12

// HasSeen says whether a delivery with this digest is among the commits.
func (h Head) HasSeen(digest string) bool {
	return len(digest) >= seenLen && strings.Contains(h.Seen, digest[:seenLen])
}

// Deliveries is how many different deliveries the commits hold.
func (h Head) Deliveries() int {
	if h.Seen == "" {
		return 0
	}
	return strings.Count(h.Seen, " ") + 1
}

// next is the head of evs appended to h, but for its sequence.
func (h Head) next(id events.ID, evs []events.Event, body []byte) Head {
	n := Head{Version: h.Version + 1, Seen: h.Seen, Digest: Chain(h.Digest, id, h.Version+1, body)}
	for _, e := range evs {
		switch e := e.(type) {
		case events.Delivered:
			if !n.HasSeen(e.Digest) && len(e.Digest) >= seenLen {
				n.Seen = strings.TrimPrefix(n.Seen+" "+e.Digest[:seenLen], " ")
			}
		case events.Completed:
			n.Done, n.Seen = true, ""
		}
	}
	return n
}

// entry is a message that a server gave us: it has it in its files at least.
func (l *Log) entry(subject string, seq uint64, stored time.Time, h nats.Header, body []byte) Entry {
	l.gate.wrote(seq)
	return EntryOf(subject, seq, stored, h, body)
}

// EntryOf is the entry of a stored message. What is missing among its headers is
// empty in it.
func EntryOf(subject string, seq uint64, stored time.Time, h nats.Header, body []byte) Entry {
	id, _ := ParseSubject(subject)
	return Entry{
		ID: id, Subject: subject, Sequence: seq,
		Version: number(h.Get(headerVersion)), Prev: number(h.Get(headerPrev)),
		CommitID: h.Get(headerCommit), Types: h.Get(headerTypes),
		Digest: h.Get(headerDigest), Seen: h.Get(headerSeen),
		Stored: stored, Body: body,
	}
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
