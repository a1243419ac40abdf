package stream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
)

// FuzzEntry: whatever headers and body a message of the stream has, it is read
// without harm: as somebody's commit, or as one that is none.
func FuzzEntry(f *testing.F) {
	const id = "0190a5c1-7a00-7000-8000-000000000001"
	f.Add("gen."+id, "1", "0", "requested", "0123456789abcdef0123456789abcdef", "", []byte(`{"at":"2026-07-01T12:00:00Z","events":[{"type":"output_failed","slot":1,"error":{"code":"c","message":"m"}}]}`))
	f.Add("gen."+id, "18446744073709551616", "-1", "delivered,completed", "", strings.Repeat("0123456789ab ", 70), []byte(`{}`))
	f.Add("gen.>", "1", "1", "completed", "x", " ", []byte(nil))
	f.Add("gen."+id+".x", "", "", "", "", "", []byte("garbage"))
	f.Fuzz(func(t *testing.T, subject, version, prev, types, digest, seen string, body []byte) {
		h := nats.Header{headerVersion: {version}, headerPrev: {prev}, headerTypes: {types}, headerDigest: {digest}, headerSeen: {seen}, headerCommit: {digest}}
		e := EntryOf(subject, 7, time.Time{}, h, body)
		if e.ID != "" && Subject(e.ID) != subject {
			t.Errorf("%q is the subject of %s", subject, e.ID)
		}
		head := e.Head()
		if n := head.Deliveries(); n < 0 || n > len(seen)+1 || head.HasSeen("") {
			t.Errorf("seen %q: %d deliveries", seen, n)
		}
		c, err := e.Decode()
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		next := head.next(e.ID, c.Events, body)
		if next.Version != head.Version+1 || len(next.Digest) != 32 {
			t.Errorf("after %+v: %+v", head, next)
		}
		for _, ev := range c.Events {
			if d, ok := ev.(events.Delivered); ok && len(d.Digest) >= seenLen && !next.Done && !next.HasSeen(d.Digest) {
				t.Errorf("a delivery %q is not remembered in %q", d.Digest, next.Seen)
			}
		}
	})
}

// FuzzReply: an answer never goes where it would be stored, or be an order to the server.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"_INBOX.abc", "_GENBOX.abc", "_R_.abc", "gen.0190a5c1-7a00-7000-8000-000000000001", "$JS.API.STREAM.DELETE.GENERATIONS", "check.x", "_INBOX", "_GENBOXgen.x", "", ">", "*.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		if !Answerable(reply) {
			return
		}
		if _, err := ParseSubject(reply); err == nil {
			t.Errorf("%q is answered", reply)
		}
		for _, kept := range []string{prefix, checkSubject, horizonSubject, parkedSubject, "genstream.", "$", "*", ">"} {
			if strings.HasPrefix(reply, kept) {
				t.Errorf("%q is answered", reply)
			}
		}
	})
}
