package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// goodData is a data directory that a server has left in order: generations
// that came out in different ways, and one that is open.
type goodData struct {
	dir   string
	early string // the log's folder as it was before the last generations

	full, partial, refused, retried, inline, open events.ID
}

// makeGood has the real system make it, on fake time.
func makeGood(t *testing.T) goodData {
	t.Helper()
	good := goodData{dir: filepath.Join(fastDir(t), "data"), early: filepath.Join(fastDir(t), "nats")}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 3, Latency: sim.Range{Min: 100 * time.Millisecond, Max: 900 * time.Millisecond}})
		ask := func(model, prompt string, count int, more map[string]any) events.ID {
			id := streamtest.NewID()
			input := map[string]any{"positivePrompt": prompt, "width": 64, "height": 64}
			for k, v := range more {
				input[k] = v
			}
			err := w.create(id, map[string]any{
				"model": model, "count": count, "input": input, "labels": map[string]string{"user": "42"}, "deadline": "24h",
			})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		w.open()
		good.full = ask("runware:101@1", "a fox [[double:2]]", 4, nil)
		good.partial = ask("runware:101@1", "a castle [[fail:2]] [[lose:3]]", 3, nil)
		w.settle(time.Hour)
		w.close()
		mustCopy(t, good.early, filepath.Join(w.cfg.Data, "nats"))
		w.open()
		good.refused = ask("runware:unknown@1", "nothing", 2, nil)
		good.retried = ask("runware:101@1", "a boat [[fail:2 inferenceError]]", 2, nil)
		good.inline = ask("runware:101@1", "a cat [[sync]]", 1, map[string]any{"outputType": "base64Data"})
		w.settle(time.Hour)
		good.open = ask("runware:101@1", "a ghost [[never]]", 1, nil)
		time.Sleep(time.Minute) // fake time, for the provider to take it
		w.end()
		var journal bytes.Buffer
		if err := w.sim.WriteJournal(&journal); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.cfg.Data, journalName), journal.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		mustCopy(t, good.dir, w.cfg.Data)
	})
	return good
}

func mustCopy(t *testing.T, to, from string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// damaged is a copy of the good data, to be broken.
type damaged struct {
	t    *testing.T
	dir  string
	good goodData
}

// log opens the log as an administrator of the stream may.
func (d damaged) log(use func(l *stream.Log)) {
	d.t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: filepath.Join(d.dir, "nats")})
	if err != nil {
		d.t.Fatal(err)
	}
	defer s.Close()
	l, err := stream.Open(d.t.Context(), s.Conn(), stream.Config{Own: true})
	if err != nil {
		d.t.Fatal(err)
	}
	use(l)
}

// append appends, well formed, what no part of genstream would: one commit a list.
func (d damaged) append(id events.ID, commits ...[]events.Event) {
	d.t.Helper()
	d.log(func(l *stream.Log) {
		head, _ := l.Head(d.t.Context(), id) // the zero head of a fresh ID
		for _, evs := range commits {
			var err error
			if _, head, err = l.Append(d.t.Context(), id, head, events.Now(), evs...); err != nil {
				d.t.Fatal(err)
			}
		}
	})
}

// publish stores a commit whose message is changed on its way.
func (d damaged) publish(id events.ID, change func(*nats.Msg)) {
	d.t.Helper()
	d.log(func(l *stream.Log) {
		head, err := l.Head(d.t.Context(), id)
		if err != nil {
			d.t.Fatal(err)
		}
		body, err := events.Encode(events.Now(), []events.Event{delivered("whatever")})
		if err != nil {
			d.t.Fatal(err)
		}
		m := nats.NewMsg(stream.Subject(id))
		m.Data = body
		m.Header.Set("Gen-Commit", "test")
		m.Header.Set("Gen-Version", fmt.Sprint(head.Version+1))
		m.Header.Set("Gen-Prev", fmt.Sprint(head.Sequence))
		m.Header.Set("Gen-Types", "delivered")
		m.Header.Set("Gen-Digest", stream.Chain(head.Digest, id, head.Version+1, body))
		change(m)
		d.stored(l.Conn(), m)
	})
}

func (d damaged) stored(nc *nats.Conn, m *nats.Msg) {
	d.t.Helper()
	ack, err := nc.RequestMsg(m, 5*time.Second)
	if err != nil || !bytes.Contains(ack.Data, []byte(`"seq":`)) {
		d.t.Fatalf("publish to %s: %v, %s", m.Subject, err, ack.Data)
	}
}

// purge takes messages out of the stream, as an operator's slip does.
func (d damaged) purge(request string) {
	d.t.Helper()
	d.log(func(l *stream.Log) {
		m, err := l.Conn().Request("$JS.API.STREAM.PURGE."+stream.Name, []byte(request), 5*time.Second)
		if err != nil || !bytes.Contains(m.Data, []byte(`"success":true`)) {
			d.t.Fatalf("purge: %v, %s", err, m.Data)
		}
	})
}

// sql runs statements on the catalog, past its guards.
func (d damaged) sql(statements ...string) {
	d.t.Helper()
	db := d.catalog()
	defer db.Close()
	var guards []string
	rows, err := db.Query("select name, sql from sqlite_schema where type = 'trigger'")
	if err != nil {
		d.t.Fatal(err)
	}
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			d.t.Fatal(err)
		}
		guards = append(guards, text)
		statements = slices.Insert(statements, 0, "drop trigger "+name)
	}
	for _, s := range append(statements, guards...) {
		if _, err := db.Exec(s); err != nil {
			d.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (d damaged) catalog() *sql.DB {
	d.t.Helper()
	name, err := os.ReadFile(filepath.Join(d.dir, catalogDir, "CURRENT"))
	if err != nil {
		d.t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(d.dir, catalogDir, strings.TrimSpace(string(name))))
	if err != nil {
		d.t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// file is the path of the file of a generation's slot.
func (d damaged) file(id events.ID, slot int) string {
	d.t.Helper()
	found, err := filepath.Glob(filepath.Join(d.dir, "bucket", "generations", string(id), fmt.Sprint(slot, "-*")))
	if err != nil || len(found) != 1 {
		d.t.Fatalf("generation=%s slot=%d has files %v, %v", id, slot, found, err)
	}
	return found[0]
}

// journal has the provider's journal rewritten: change may alter an entry, and
// returns what stands in its place.
func (d damaged) journal(change func(e sim.Entry) []sim.Entry) {
	d.t.Helper()
	path := filepath.Join(d.dir, journalName)
	f, err := os.Open(path)
	if err != nil {
		d.t.Fatal(err)
	}
	entries, err := sim.ReadJournal(f)
	f.Close()
	if err != nil {
		d.t.Fatal(err)
	}
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	for _, e := range entries {
		for _, e := range change(e) {
			if err := to.Encode(e); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// told is what `genstream verify` said: the IDs that it named for each broken invariant.
func told(t *testing.T, text string) map[string][]string {
	t.Helper()
	line, id := regexp.MustCompile(`^ {2}(I\d+) +(ok|BROKEN|skipped)`), regexp.MustCompile(`^ {10}generation=(\S+) `)
	broken := map[string][]string{}
	at := ""
	for l := range strings.Lines(text) {
		if m := line.FindStringSubmatch(l); m != nil {
			if at = m[1]; m[2] == "BROKEN" {
				broken[at] = []string{}
			}
		} else if m := id.FindStringSubmatch(l); m != nil {
			broken[at] = append(broken[at], m[1])
		}
	}
	return broken
}

func TestVerifyNamesWhatIsBroken(t *testing.T) {
	good := makeGood(t)
	fresh := func(t *testing.T) damaged {
		d := damaged{t, filepath.Join(fastDir(t), "data"), good}
		mustCopy(t, d.dir, good.dir)
		return d
	}
	var r verify.Report
	t.Run("good data", func(t *testing.T) {
		d := fresh(t)
		var out, errs bytes.Buffer
		if code := run([]string{"verify", "--json", "--data", d.dir}, &out, &errs); code != 0 {
			t.Errorf("exit %d: %s%s", code, errs.String(), out.String())
		}
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Claims {
			if c.Looked == 0 || c.Count != 0 || c.Skipped != "" {
				t.Errorf("%s: looked at %d %s, found %d, skipped %q: %+v", c.Invariant, c.Looked, c.Of, c.Count, c.Skipped, c.Broken)
			}
		}
	})
	t.Run("no catalog", func(t *testing.T) { fresh(t).withoutCatalog() })
	tried := map[string]bool{}
	for _, b := range breakages(good) {
		tried[b.invariant] = true
		t.Run(b.invariant+" "+b.name, func(t *testing.T) {
			d := fresh(t)
			b.do(d)
			var out, errs bytes.Buffer
			code := run([]string{"verify", "--data", d.dir}, &out, &errs)
			broken := told(t, out.String())
			ids, named := broken[b.invariant]
			if code != 1 || !named || b.id != "" && !slices.Contains(ids, string(b.id)) {
				t.Errorf("exit %d, want 1 with %s and %q named:\n%s%s", code, b.invariant, b.id, errs.String(), out.String())
			}
			// What else is said must follow from it: an alarm too many misleads as well.
			delete(broken, b.invariant)
			if also := slices.Sorted(maps.Keys(broken)); !slices.Equal(also, strings.Fields(b.also)) {
				t.Errorf("%v are named too, want %q:\n%s", also, b.also, out.String())
			}
		})
	}
	for _, c := range r.Claims {
		if !tried[c.Invariant] {
			t.Errorf("%s is checked, and nothing here breaks it", c.Invariant)
		}
	}
}

// A log whose catalog is gone is checked as far as it goes, and what could not
// be checked is not called good.
func (d damaged) withoutCatalog() {
	d.t.Helper()
	if err := os.RemoveAll(filepath.Join(d.dir, catalogDir)); err != nil {
		d.t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"verify", "--data", d.dir}, &out, &errs); code != 0 {
		d.t.Errorf("exit %d: %s%s", code, errs.String(), out.String())
	}
	for _, i := range []string{"I8", "I9", "I10", "I12", "I21"} {
		if !regexp.MustCompile(`(?m)^ {2}` + i + ` +skipped`).MatchString(out.String()) {
			d.t.Errorf("%s is not said to be skipped:\n%s", i, out.String())
		}
	}
}
