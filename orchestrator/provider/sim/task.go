package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"strconv"
	"time"
)

// task is one that was taken. Server.mu guards the fields after plan.
type task struct {
	Order
	ready time.Time
	plan  plan
	made  chan struct{} // closed when the output is made or failed

	output    *Entry // nil before that
	downloads int
	hooks     map[int]hook // by copy
}

// hook is how far one webhook is.
type hook struct {
	tries int
	done  bool
}

// take makes a task known and starts it. It reports false for one whose UUID
// was taken before. The error is the journal's, and then nothing is taken.
func (s *Server) take(o Order, call int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, errClosed
	}
	if s.tasks[o.Task] != nil {
		return false, s.note(Entry{Kind: KindRefused, Task: o.Task, Call: call, Code: codeDuplicate})
	}
	t := s.newTask(o, time.Time{})
	t.ready = time.Now().UTC().Add(t.plan.latency)
	if err := s.note(Entry{Kind: KindTaken, Task: o.Task, Call: call, Order: &o, Ready: t.ready}); err != nil {
		return false, err
	}
	s.tasks[o.Task] = t
	s.start(t)
	return true, nil
}

func (s *Server) newTask(o Order, ready time.Time) *task {
	return &task{Order: o, ready: ready, plan: s.cfg.plan(o), made: make(chan struct{}), hooks: map[int]hook{}}
}

// start runs a task in the background; the caller holds mu.
func (s *Server) start(t *task) {
	if t.plan.never || t.plan.gone {
		return
	}
	s.wg.Go(func() {
		if t.output == nil && (!s.sleep(t.ready) || !s.make(t)) {
			return
		}
		s.deliver(t)
	})
}

// make draws the output, or lets it fail. It reports false if the journal
// cannot be written: then the output was not made.
func (s *Server) make(t *task) bool {
	now := time.Now().UTC()
	e := Entry{At: now, Kind: KindOutput, Task: t.Task, Code: t.plan.code}
	if e.Code == "" {
		file := s.painter.draw(t.Order)
		sum := sha256.Sum256(file)
		e.Seed, e.Cost = strconv.FormatUint(t.Seed, 10), price(t.Order)
		e.Size, e.SHA256 = int64(len(file)), hex.EncodeToString(sum[:])
		if t.TTL > 0 {
			e.Expires = now.Add(time.Duration(t.TTL) * time.Second)
		}
		if t.plan.expire > 0 {
			e.Expires = now.Add(t.plan.expire)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.note(e) != nil {
		return false
	}
	t.output = &e
	close(t.made)
	return true
}

// restore brings back what the journal tells of, and starts what was not at its end.
func (s *Server) restore(entries []Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		t := s.tasks[e.Task]
		switch {
		case e.Kind == KindCreate:
			s.calls = max(s.calls, e.Call)
			if len(e.Tasks) > 0 {
				s.repeats[e.Tasks[0]]++
			}
		case e.Kind == KindTaken && e.Order != nil:
			s.tasks[e.Task] = s.newTask(*e.Order, e.Ready)
		case t == nil:
		case e.Kind == KindOutput:
			if t.output == nil {
				t.output = &e
				close(t.made)
			}
		case e.Kind == KindFile:
			t.downloads++
		case e.Kind == KindWebhook:
			t.hooks[e.Copy] = hook{tries: e.Try, done: e.HTTP/100 == 2}
		}
	}
	for _, t := range s.tasks {
		s.start(t)
	}
}

// randomSeed is the seed of a task that asked for none: 32 bits, as the real service chooses them.
func randomSeed(task string) uint64 {
	h := fnv.New32a()
	h.Write([]byte(task))
	return uint64(h.Sum32())
}

// item is what is said of a task that is finished, in the wire's form.
func (s *Server) item(t *task, out Entry) map[string]any {
	if out.Code != "" {
		return map[string]any{
			"code": out.Code, "message": message(out.Code), "status": "error", "taskUUID": t.Task, "taskType": t.Type,
			"documentation": "https://runware.ai/docs/en/utilities/error-handling",
		}
	}
	kind := map[string]string{"videoInference": "video", "audioInference": "audio", "3dInference": "media"}[t.Type]
	if kind == "" {
		kind = "image"
	}
	m := map[string]any{
		"taskType": t.Type, "taskUUID": t.Task, "status": "success",
		kind + "UUID": t.Task, "seed": json.Number(out.Seed),
	}
	switch t.OutputType {
	case "base64Data":
		m[kind+"Base64Data"] = base64.StdEncoding.EncodeToString(s.painter.draw(t.Order))
	case "dataURI":
		m[kind+"DataURI"] = "data:image/png;base64," + base64.StdEncoding.EncodeToString(s.painter.draw(t.Order))
	default:
		m[kind+"URL"] = s.cfg.BaseURL() + "/files/" + t.Task + ".png"
	}
	if t.WithCost {
		m["cost"] = json.Number(dollars(out.Cost))
	}
	if t.plan.nsfw {
		m["NSFWContent"] = true
	}
	return m
}
