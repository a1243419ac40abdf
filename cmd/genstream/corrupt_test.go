package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/projector"
)

// corruptible are the kinds of files that a case picks from, by what their path
// within the data directory has in it.
var corruptible = map[string]func(path string) bool{
	"log":           func(p string) bool { return strings.Contains(p, "/GENERATIONS/msgs/") && strings.HasSuffix(p, ".blk") },
	"index":         func(p string) bool { return strings.HasSuffix(p, "index.db") },
	"metadata":      func(p string) bool { return strings.Contains(p, "/meta.") },
	"other streams": func(p string) bool { return strings.HasSuffix(p, ".blk") && !strings.Contains(p, "/GENERATIONS/") },
	"catalog":       func(p string) bool { return strings.HasPrefix(p, catalogDir+"/") && strings.HasSuffix(p, ".db") },
	"CURRENT":       func(p string) bool { return strings.HasSuffix(p, "/CURRENT") },
	"bucket":        func(p string) bool { return strings.HasPrefix(p, "bucket/") },
	"secrets":       func(p string) bool { return p == webhookKeysName },
	"anything":      func(p string) bool { return p != "LOCK" && p != createdName },
}

// Whatever a disk does to one of the files, a start repairs it, or the start or
// verify says so: no other event, row or byte is given out in silence.
//
// GENSTREAM_CORRUPTIONS=300 go test -tags corrupt -run Corrupt -v -timeout 1h ./cmd/genstream
// tries that many; GENSTREAM_SEED repeats them, from the case GENSTREAM_FROM.
func TestCorrupt(t *testing.T) {
	run := prooftest.Begin(t, "corruption")
	n, seed := corruptions, rand.Uint64()
	if run.Long() { // a number is a case
		seed = 1
	}
	if v, err := strconv.Atoi(os.Getenv("GENSTREAM_CORRUPTIONS")); err == nil {
		n = v
	}
	if v, err := strconv.ParseUint(os.Getenv("GENSTREAM_SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("GENSTREAM_SEED=%d", seed)
	good := makeCorruptible(t)
	tally := map[string]int{}
	kinds := slices.Sorted(maps.Keys(corruptible))
	for i := range run.Cases(n) {
		c := corruption{t: t, good: good, dir: filepath.Join(fastDir(t), "data"), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		kind := kinds[i%len(kinds)]
		came := c.run(i, kind)
		tally[kind+": "+came]++
		if came == silent {
			run.Violated(i)
		}
		os.RemoveAll(filepath.Dir(c.dir))
	}
	for _, what := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%4d %s", tally[what], what)
	}
}

// intact is a data directory in order, and all that it says.
type intact struct {
	dir     string
	commits map[uint64]string // what the commit at a sequence is
	dump    string
	files   map[string]string // digest of each file in the bucket that a commit names
	keys    string            // of webhooks
}

// makeCorruptible has the real system make some dozens of generations, the last
// of them open.
func makeCorruptible(t *testing.T) intact {
	t.Helper()
	good := intact{dir: filepath.Join(fastDir(t), "data")}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 4, Latency: sim.Range{Min: 100 * time.Millisecond, Max: 900 * time.Millisecond}})
		ask := func(prompt string, count int, more map[string]any) {
			input := map[string]any{"positivePrompt": prompt, "width": 64, "height": 64}
			maps.Copy(input, more)
			err := w.create(streamtest.NewID(), map[string]any{
				"model": "runware:101@1", "count": count, "input": input, "labels": map[string]string{"user": "42"}, "deadline": "24h",
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		w.open()
		for i := range 12 {
			ask(fmt.Sprintf("a fox %d [[double:2]]", i), 4, nil)
			ask(fmt.Sprintf("a castle %d [[fail:2]]", i), 3, nil)
			ask(fmt.Sprintf("a cat %d [[sync]]", i), 1, map[string]any{"outputType": "base64Data"})
			ask(fmt.Sprintf("a boat %d [[fail:2 inferenceError]]", i), 2, nil)
		}
		w.settle(time.Hour)
		for i := range 6 {
			ask(fmt.Sprintf("a ghost %d [[never]]", i), 2, nil)
		}
		time.Sleep(time.Minute) // fake time, for the provider to take them
		w.end()
		mustCopy(t, good.dir, w.cfg.Data)
	})
	s, err := readIntact(t.Context(), good.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.dir = good.dir
	return s
}

// readIntact reads everything, as a stopped server left it.
func readIntact(ctx context.Context, dir string) (s intact, err error) {
	s = intact{commits: map[uint64]string{}, files: map[string]string{}}
	o, err := openStored(ctx, config{Data: dir, Bucket: filepath.Join(dir, "bucket")})
	if err != nil {
		return s, err
	}
	defer o.close()
	end, err := o.log.Refresh(ctx)
	if err != nil {
		return s, err
	}
	err = o.log.Scan(ctx, 0, end, func(batch []stream.Entry) error {
		for _, e := range batch {
			s.commits[e.Sequence] = fmt.Sprint(e.ID, e.Version, e.Prev, e.Types, e.Digest, e.Seen, string(e.Body))
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	cat, err := projector.OpenCurrent(ctx, filepath.Join(dir, catalogDir))
	if err != nil {
		return s, err
	}
	defer cat.Close()
	var dump bytes.Buffer
	if err := cat.Dump(ctx, &dump); err != nil {
		return s, err
	}
	s.dump = dump.String()
	if err := cat.CheckIndexes(ctx); err != nil {
		return s, err
	}
	keys, err := webhookKeys(config{Data: dir})
	if err != nil {
		return s, err
	}
	s.keys = fmt.Sprintf("%x", keys)
	all := strings.Join(slices.Collect(maps.Values(s.commits)), "")
	return s, filepath.WalkDir(filepath.Join(dir, "bucket"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(all, d.Name()) { // what no commit names is nobody's
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		s.files[name] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
}

// differs says in what something is not as it was, empty if in nothing. There may be more of it.
func (s intact) differs(now intact) string {
	for at, was := range s.commits {
		if now.commits[at] != was {
			return fmt.Sprintf("the commit at %d is another one", at)
		}
	}
	if now.dump != s.dump {
		return "the catalog says something else"
	}
	if now.keys != s.keys {
		return "webhooks have other keys"
	}
	for name, was := range s.files {
		if now.files[name] != was {
			return name + " is another file"
		}
	}
	return ""
}

// corruption is one case.
type corruption struct {
	t    *testing.T
	good intact
	dir  string
	rng  *rand.Rand
}

// silent is what must not come of a case.
const silent = "SILENT"

// run damages a copy and says what came of it.
func (c corruption) run(i int, kind string) string {
	c.t.Helper()
	mustCopy(c.t, c.dir, c.good.dir)
	what := c.damage(kind)
	if what == "" {
		return "nothing to damage"
	}
	looks := []func() string{c.verify, c.start}
	c.rng.Shuffle(len(looks), func(a, b int) { looks[a], looks[b] = looks[b], looks[a] })
	for _, look := range looks {
		if told := look(); told != "" {
			c.t.Logf("%d %s: told: %.240s", i, what, told)
			return "detected"
		}
	}
	if told := c.verify(); told != "" {
		c.t.Logf("%d %s: told in the end: %.240s", i, what, told)
		return "detected"
	}
	now, err := readIntact(c.t.Context(), c.dir)
	if err != nil {
		c.t.Errorf("%d %s: SILENT: nobody told, and then: %v", i, what, err)
		return silent
	}
	if d := c.good.differs(now); d != "" {
		c.t.Errorf("%d %s: SILENT: %s", i, what, d)
		return silent
	}
	return "repaired"
}

// damage flips a bit of a file, cuts it, or zeroes a page of it.
func (c corruption) damage(kind string) (what string) {
	c.t.Helper()
	var paths []string
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(c.dir, path)
		if info, err := d.Info(); err == nil && info.Size() > 0 && corruptible[kind](filepath.ToSlash(name)) {
			paths = append(paths, name)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if len(paths) == 0 {
		return ""
	}
	name := paths[c.rng.IntN(len(paths))]
	path := filepath.Join(c.dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	at := c.rng.IntN(len(b))
	switch c.rng.IntN(3) {
	case 0:
		bit := c.rng.IntN(8)
		b[at] ^= 1 << bit
		what = fmt.Sprintf("%s: bit %d of byte %d", name, bit, at)
	case 1:
		b = b[:at]
		what = fmt.Sprintf("%s: cut at %d", name, at)
	default:
		page := at / 4096 * 4096
		clear(b[page:min(page+4096, len(b))])
		what = fmt.Sprintf("%s: page at %d zeroed", name, page)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return what
}

// verify is what `genstream verify` has to say.
func (c corruption) verify() string {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	r, err := verifyStored(ctx, config{Data: c.dir, Bucket: filepath.Join(c.dir, "bucket")}, 24*time.Hour)
	if err != nil {
		return "verify: " + err.Error()
	}
	if r.Violations() == 0 {
		return ""
	}
	var b bytes.Buffer
	r.Print(&b)
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "->") {
			return "verify: " + strings.TrimSpace(line)
		}
	}
	return "verify: " + b.String()
}

// start runs the program on it for a while, and is what it ends with.
func (c corruption) start() (told string) {
	bubble(c.t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 4})
		defer w.end()
		w.cfg.Data, w.cfg.Bucket = c.dir, "file://"+filepath.Join(c.dir, "bucket")
		time.Sleep(2 * time.Hour) // fake time: it is later than when it was stopped
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		n, err := openNode(ctx, w.cfg, wires{listen: w.pipes.listen, transport: w.tr}, slog.New(slog.DiscardHandler))
		if err != nil {
			told = "start: " + err.Error()
			return
		}
		defer n.close()
		ran := make(chan error, 1)
		go func() { ran <- n.run(ctx, nil) }()
		select {
		case err := <-ran:
			told = fmt.Sprintf("start: %v", err)
			return
		case <-time.After(20 * time.Second):
		}
		stop()
		if err := <-ran; err != nil {
			told = "stop: " + err.Error()
		}
		w.tr.CloseIdleConnections()
	})
	return told
}
