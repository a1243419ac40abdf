package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// breakage is one way to break one invariant in good data.
type breakage struct {
	invariant, name string
	id              events.ID // that must be named; empty where no generation is to blame
	also            string    // invariants that cannot but break with it, in the order of their names
	do              func(d damaged)
}

func breakages(good goodData) []breakage {
	return slices.Concat(logBreakages(good), rowBreakages(good), fileBreakages(good), journalBreakages(good))
}

// delivered is a delivery that changes no fold.
func delivered(body string) events.Event {
	return events.Delivered{Source: events.FromPoll, Digest: events.Digest([]byte(body))}
}

func logBreakages(good goodData) []breakage {
	failed := func(slot int) events.Event {
		return events.OutputFailed{Slot: slot, Error: events.Error{Code: "test", Message: "test"}}
	}
	// completed is the completion of the open generation, as it should be.
	completed := func(d damaged, before ...events.Event) (c events.Completed) {
		d.log(func(l *stream.Log) {
			g, _, err := l.Load(d.t.Context(), good.open)
			if err != nil {
				d.t.Fatal(err)
			}
			for _, e := range before {
				g = events.Apply(g, e)
			}
			g.At = events.Now()
			c.Error = &events.Error{Code: "test", Message: "test"}
			c.Generation = events.Apply(g, c)
		})
		return c
	}
	// complete appends it: its time must be the commit's.
	complete := func(d damaged, c events.Completed, after ...events.Event) {
		evs := append([]events.Event{failed(0), c}, after...)
		d.log(func(l *stream.Log) {
			head, err := l.Head(d.t.Context(), good.open)
			if err == nil {
				_, _, err = l.Append(d.t.Context(), good.open, head, c.Generation.CompletedAt, evs...)
			}
			if err != nil {
				d.t.Fatal(err)
			}
		})
	}
	fresh := streamtest.NewID()
	return []breakage{
		{"I3", "a version is left out", good.open, "", func(d damaged) {
			d.publish(good.open, func(m *nats.Msg) { m.Header.Set("Gen-Version", "9") })
		}},
		{"I3", "a link back is wrong", good.open, "", func(d damaged) {
			d.publish(good.open, func(m *nats.Msg) { m.Header.Set("Gen-Prev", "1") })
		}},
		{"I3", "a body was altered", good.open, "", func(d damaged) {
			d.publish(good.open, func(m *nats.Msg) { m.Data = append(m.Data, ' ') })
		}},
		{"I3", "a body is garbage", good.open, "", func(d damaged) {
			d.publish(good.open, func(m *nats.Msg) {
				m.Data = []byte("garbage")
				m.Header.Set("Gen-Digest", stream.Chain("", good.open, 1, m.Data))
			})
		}},
		{"I3", "commits are gone from the middle", "", "I12 I14 I9", func(d damaged) {
			d.purge(`{"filter":"` + stream.Subject(good.inline) + `"}`)
		}},
		{"I3", "commits are gone from the front", good.full, "I12 I14 I4 I6 I7 I9", func(d damaged) { d.purge(`{"seq":2}`) }},
		{"I3", "the last commits are gone", "", "I12 I14 I21 I9", func(d damaged) { d.purge(`{}`) }},
		{"I4", "it begins otherwise", fresh, "", func(d damaged) { d.append(fresh, []events.Event{delivered("x")}) }},
		{"I4", "it is requested again", good.open, "", func(d damaged) {
			d.append(good.open, []events.Event{streamtest.Request(good.open, 1)})
		}},
		{"I5", "a slot ends twice", good.open, "", func(d damaged) {
			d.append(good.open, []events.Event{failed(0)}, []events.Event{failed(0)})
		}},
		{"I5", "a slot ends that does not exist", good.open, "", func(d damaged) {
			d.append(good.open, []events.Event{failed(events.MaxCount)})
		}},
		{"I6", "something follows", good.full, "", func(d damaged) { d.append(good.full, []events.Event{delivered("x")}) }},
		{"I6", "something follows in the same commit", good.open, "", func(d damaged) {
			complete(d, completed(d, failed(0)), delivered("x"))
		}},
		{"I6", "it does not carry the fold", good.open, "", func(d damaged) {
			c := completed(d, failed(0))
			c.Generation.Model = "other:1@1"
			complete(d, c)
		}},
		{"I7", "a failure without an error", good.open, "", func(d damaged) {
			c := completed(d, failed(0))
			c.Error, c.Generation.Error = nil, nil
			complete(d, c)
		}},
		{"I14", "a slot is claimed without a definite no", good.open, "", func(d damaged) {
			d.append(good.open, []events.Event{events.Dispatching{
				Attempt: 2, By: "test", Until: events.Now(), Tasks: []events.Task{{Slot: 0, Try: 2, ID: events.TaskID(good.open, 0, 2)}},
			}})
		}},
		{"I14", "two claims are open", good.open, "", func(d damaged) {
			claim := func(attempt int) []events.Event {
				return []events.Event{events.Dispatching{Attempt: attempt, By: "test", Until: events.Now()}}
			}
			d.append(good.open, claim(2), claim(3))
		}},
		{"I20", "a subject is no ID", "", "", func(d damaged) {
			d.log(func(l *stream.Log) { d.stored(l.Conn(), &nats.Msg{Subject: "gen.not-an-id", Data: []byte("{}")}) })
		}},
		{"I20", "a subject has one part too many", "", "", func(d damaged) {
			d.log(func(l *stream.Log) {
				d.stored(l.Conn(), &nats.Msg{Subject: stream.Subject(good.open) + ".x", Data: []byte("{}")})
			})
		}},
		{"I21", "an older log was put back", "", "I12 I14 I9", func(d damaged) {
			mustCopy(d.t, filepath.Join(d.dir, "nats"), good.early)
		}},
	}
}

func rowBreakages(good goodData) []breakage {
	of := func(id events.ID) string { return " where id = '" + string(id) + "'" }
	first := events.ArtifactID(good.full, 0)
	row := func(id events.ID) string {
		return fmt.Sprintf("insert into generations select '%s', model, input, 0, created_at, completed_at from generations%s", id, of(good.refused))
	}
	artifact := func(id string, generation events.ID) string {
		return fmt.Sprintf("insert into artifacts select '%s', '%s', model, blob_key, content_type, seed, cost, metadata, created_at from artifacts where id = '%s'", id, generation, first)
	}
	sql := func(statements ...string) func(d damaged) {
		return func(d damaged) { d.sql(statements...) }
	}
	bare := func(statement string) func(d damaged) {
		return func(d damaged) {
			db := d.catalog()
			defer db.Close()
			if _, err := db.Exec(statement); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	return []breakage{
		{"I7", "a count is wrong", good.full, "I12 I8", sql("update generations set artifact_count = 3" + of(good.full))},
		{"I7", "an artifact too many", good.partial, "I12", sql(artifact(events.ArtifactID(good.partial, 1), good.partial))},
		{"I8", "a row was altered", good.full, "I12", sql("update generations set model = 'other:1@1'" + of(good.full))},
		{"I8", "an input was altered", good.refused, "I12", sql("update generations set input = '{}'" + of(good.refused))},
		{"I8", "a row is missing", good.refused, "I12", sql("delete from generations" + of(good.refused))},
		{"I8", "an artifact's row was altered", good.full, "I12", sql("update artifacts set cost = cost + 1 where id = '" + first + "'")},
		{"I8", "an artifact's row is missing", good.full, "I12 I7", sql("delete from artifacts where id = '" + first + "'")},
		{"I9", "a row of an open generation", good.open, "I12", sql(row(good.open))},
		{"I9", "an artifact of an open generation", good.open, "I12", sql(artifact(events.ArtifactID(good.open, 0), good.open))},
		{"I10", "a guard is missing", "", "", bare("drop trigger artifacts_update")},
		{"I10", "a guard lets through", "", "", bare("drop trigger generations_delete; create trigger generations_delete before delete on generations begin select 1; end")},
		{"I12", "a total is wrong", "", "", bare("update counters set cost = cost + 1")},
		{"I12", "a label is missing", "", "", bare("delete from artifact_labels where artifact_id = '" + first + "'")},
		{"I12", "an entry is missing", "", "", bare("delete from entries where generation_id = '" + string(good.full) + "'")},
		{"I21", "another stream", "", "", bare("update position set fingerprint = 'another'")},
		{"I21", "another commit at the position", good.open, "", bare("update position set digest = 'another'")},
	}
}

func fileBreakages(good goodData) []breakage {
	write := func(d damaged, path string, b []byte, err error) {
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
	// orphan writes a file that no commit names, two days old.
	orphan := func(d damaged, name string) {
		path := filepath.Join(d.dir, "bucket", "generations", string(good.full), name)
		write(d, path, []byte("x"), nil)
		old := time.Now().Add(-48 * time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			d.t.Fatal(err)
		}
	}
	name := "3-" + strings.Repeat("0", 32) + ".png"
	return []breakage{
		{"I11", "a file is missing", good.full, "", func(d damaged) {
			if err := os.Remove(d.file(good.full, 2)); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"I11", "a file was cut", good.partial, "", func(d damaged) {
			path := d.file(good.partial, 2)
			b, err := os.ReadFile(path)
			write(d, path, b[:len(b)-1], err)
		}},
		{"I11", "a byte of a file was altered", good.retried, "", func(d damaged) {
			path := d.file(good.retried, 0)
			b, err := os.ReadFile(path)
			b[len(b)/2] ^= 1
			write(d, path, b, err)
		}},
		{"I13", "an orphan", good.full, "", func(d damaged) { orphan(d, name) }},
		{"I13", "a leftover", good.full, "", func(d damaged) { orphan(d, name+".1f.tmp") }},
	}
}

func journalBreakages(good goodData) []breakage {
	task := func(id events.ID, slot int) string { return events.TaskID(id, slot, 1) }
	// alter changes the entries of one kind about a task; change returns how often each then stands there.
	alter := func(kind, task string, change func(e *sim.Entry) int) func(d damaged) {
		return func(d damaged) {
			found := false
			d.journal(func(e sim.Entry) []sim.Entry {
				if e.Kind != kind || e.Task != task && !slices.Contains(e.Tasks, task) {
					return []sim.Entry{e}
				}
				found = true
				n := change(&e)
				return slices.Repeat([]sim.Entry{e}, n)
			})
			if !found {
				d.t.Fatalf("the journal has no %s of task %s", kind, task)
			}
		}
	}
	twice := func(*sim.Entry) int { return 2 }
	none := func(*sim.Entry) int { return 0 }
	return []breakage{
		{"I14", "a call too many", good.full, "", alter(sim.KindCreate, task(good.full, 0), twice)},
		{"I14", "a task is taken twice", good.partial, "", alter(sim.KindTaken, task(good.partial, 0), twice)},
		{"I14", "a call that nobody claimed", "", "", alter(sim.KindCreate, task(good.full, 0), func(e *sim.Entry) int {
			e.Tasks = []string{"unclaimed"}
			return 1
		})},
		{"I23", "an output that is no artifact", good.partial, "", alter(sim.KindOutput, task(good.partial, 1), func(e *sim.Entry) int {
			e.Code, e.Seed, e.SHA256, e.Cost = "", "1", strings.Repeat("0", 64), 1
			return 1
		})},
		{"I23", "an artifact of another picture", good.full, "", alter(sim.KindOutput, task(good.full, 0), func(e *sim.Entry) int {
			e.SHA256 = strings.Repeat("0", 64)
			return 1
		})},
		{"I23", "an artifact that nobody made", good.full, "", alter(sim.KindOutput, task(good.full, 3), none)},
		{"I24", "a price is another", good.full, "", alter(sim.KindOutput, task(good.full, 1), func(e *sim.Entry) int {
			e.Cost++
			return 1
		})},
	}
}
