package orchestrator

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

// simProjector reads the log with the real Read into a catalog that keeps rows and
// position together, as its transaction does.
type simProjector struct {
	s  *simulation
	p  *process
	at catalog.Position // of this life

	saved   catalog.Position
	rows    map[events.ID]*simRow
	before  []catalog.Position // after each transaction: what a power cut may leave
	reading bool
}

type simRow struct {
	catalog.Entry
	upto uint64 // the position that its transaction moved to
}

// begin is a start: it goes on from the position in the catalog, which must be of
// this log (I21).
func (j *simProjector) begin() {
	j.at, j.reading = j.saved, false
	if n := j.at.Sequence; n > 0 && (n > j.s.log.end() || j.s.log.stored[n-1].Digest != j.at.Digest) {
		j.s.problem("I21: the catalog has read commit %d, which the log does not have", n)
	}
	j.feed()
}

func (j *simProjector) lag() int { return int(j.s.log.end()) - int(j.at.Sequence) }

// feed has it read what is new, once that is on disk.
func (j *simProjector) feed() {
	s := j.s
	if j.reading || !j.p.alive || j.lag() <= 0 {
		return
	}
	j.reading = true
	s.after(s.upto(50*time.Millisecond), j.p, func() {
		s.run(j.p, func() {
			end := s.log.end()
			batch := s.log.entries(j.at.Sequence, end)
			if err := stream.Hand(context.Background(), s.log.Await, batch, true, j.read); err != nil {
				panic(err)
			}
			j.reading = false
			j.feed()
		})
	})
}

func (j *simProjector) read(batch []stream.Entry) error {
	s := j.s
	r := projector.Read(j.at, batch)
	if s.bad(diesBeforeRows) {
		s.kill(j.p)
		s.die()
	}
	if len(r.Unreadable) > 0 {
		s.problem("I8: commit %d cannot be read: %v", r.Unreadable[0].Entry.Sequence, r.Unreadable[0].Cause)
	}
	if len(r.Entries) > 0 { // else the position is saved now and then
		for _, e := range r.Entries {
			s.left("row", e.Generation.ID, e.Sequence)
			if e.Sequence > j.saved.Sequence && j.rows[e.Generation.ID] == nil {
				j.rows[e.Generation.ID] = &simRow{e, r.Upto.Sequence}
			}
		}
		j.saved = r.Upto
		j.before = append(j.before, j.saved)
	}
	if s.bad(diesAfterRows) {
		s.kill(j.p)
		s.die()
	}
	j.at = r.Upto
	return nil
}

// cutPower takes the last transactions: rows and position of each together.
func (j *simProjector) cutPower() {
	for len(j.before) > 0 && j.s.chance(50) {
		j.before = j.before[:len(j.before)-1]
		j.s.hit(rowsCut)
	}
	j.saved = catalog.Position{}
	if n := len(j.before); n > 0 {
		j.saved = j.before[n-1]
	}
	for id, row := range j.rows {
		if row.upto > j.saved.Sequence {
			delete(j.rows, id)
		}
	}
}

// submit brings a request into the queue of submissions, which keeps it until it
// is acknowledged.
func (c *simClient) submit(p *promise) {
	s := c.s
	s.hit(submitted)
	s.queued++
	w := &waiting{s: s, entry: stream.Entry{Sequence: s.queued, Stored: s.now, Body: p.sub.Body}}
	p.id = events.SubmittedID("queue", s.queued, s.now)
	p.acked = true
	w.hand()
}

// waiting is a submission in its queue.
type waiting struct {
	s     *simulation
	entry stream.Entry
	acked bool
	again time.Time
}

func (w *waiting) hand() {
	s := w.s
	s.after(s.upto(2*time.Millisecond), nil, func() {
		if w.acked {
			return
		}
		w.again = s.now.Add(stream.AckWait)
		if p := s.anyReady(); p != nil {
			p.o.submitted(stream.NewWork(w.entry, nats.Header{}, w))
		} else {
			w.again = s.now.Add(time.Second)
		}
		w.watch()
	})
}

func (w *waiting) watch() {
	at := w.again
	w.s.plan(at, nil, func() {
		if w.again.Equal(at) && !w.acked {
			w.hand()
		}
	})
}

// Ack implements stream.Taken.
func (w *waiting) Ack() error {
	if !w.acked && !w.s.bad(workAckLost) {
		w.acked = true
		w.s.requester.asking--
	}
	return nil
}

// InProgress implements stream.Taken.
func (w *waiting) InProgress() error { return nil }

// NakWithDelay implements stream.Taken.
func (w *waiting) NakWithDelay(d time.Duration) error {
	w.again = w.s.now.Add(d)
	w.watch()
	return nil
}
