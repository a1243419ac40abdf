package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dice are thrown for one thing alone: what they show depends on nothing but the
// seed and the name of that thing.
func dice(seed uint64, thing string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(thing))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func (r Range) pick(d *rand.Rand) time.Duration {
	share := d.Float64() // always one throw, so that ranges do not shift each other
	return r.Min + time.Duration(share*float64(max(0, r.Max-r.Min)))
}

// plan is the fate of one task.
type plan struct {
	latency time.Duration
	code    string // it fails with this; empty = it succeeds
	vague   bool
	never   bool
	gone    bool
	nsfw    bool

	lost   bool
	flat   bool
	copies int           // webhooks to send
	late   time.Duration // after the output was made

	expire   time.Duration // 0 = by the task's ttl only
	trickle  time.Duration
	mistyped bool
	cut      int // downloads, from the first on, that are spoiled so
	endless  int
	html     int
}

// failures are the codes by which tasks fail by chance: retryable ones and others.
func failures() []string {
	return []string{"inferenceError", "contentPolicyViolation", "timeoutProvider", "invalidProviderContent"}
}

// plan decides what befalls a task. Every rate has its throw, used or not.
func (c Config) plan(o Order) plan {
	d, f := dice(c.Seed, "task/"+o.Task), c.Faults
	p := plan{latency: c.Latency.pick(d), copies: 1}
	fails, code := d.Float64() < f.Failing, failures()[d.IntN(len(failures()))]
	if fails {
		p.code = code
	}
	p.lost = d.Float64() < f.Lost
	late, by := d.Float64() < f.Late, f.LateBy.pick(d)
	if late {
		p.late = by
	}
	if d.Float64() < f.Doubled {
		p.copies = 2
	}
	reordered, by := d.Float64() < f.Reordered, Range{0, 2 * c.Latency.Max}.pick(d)
	if reordered {
		p.late += by
	}
	p.flat = d.Float64() < f.Flat
	expires, after := d.Float64() < f.Expiring, f.ExpireAfter.pick(d)
	if expires {
		p.expire = after
	}
	if d.Float64() < f.Trickle {
		p.trickle = 2 * time.Second
	}
	if d.Float64() < f.Cut {
		p.cut = 1
	}
	if d.Float64() < f.Endless {
		p.endless = 1
	}
	p.mistyped = d.Float64() < f.Mistyped
	for _, w := range directives(o.Prompt) {
		if w.hits(o.Place) {
			p.direct(w)
		}
	}
	return p
}

func (p *plan) direct(w directive) {
	switch w.word {
	case "take":
		p.latency = w.duration()
	case "fail":
		p.code = w.or("contentPolicyViolation")
	case "vague":
		p.vague = true
	case "never":
		p.never = true
	case "gone":
		p.gone = true
	case "nsfw":
		p.nsfw = true
	case "lose":
		p.lost = true
	case "late":
		p.late = w.duration()
	case "double":
		p.copies = 2
	case "flat":
		p.flat = true
	case "expire":
		p.expire = w.duration()
	case "trickle":
		p.trickle = w.duration()
	case "cut":
		p.cut = w.times()
	case "endless":
		p.endless = w.times()
	case "mistype":
		p.mistyped = true
	case "html":
		p.html = w.times()
	}
}

// fate is what befalls one create call as a whole.
type fate struct {
	fault string // busy, broken, stall, refuse, ambiguous or hang; empty = none
	slow  time.Duration
	sync  bool
	html  bool // a 5xx comes as a web page
	harsh bool // a partial refusal comes with HTTP 400
}

// fate decides over the nth call, from 0, that begins with a task.
func (c Config) fate(o Order, n int) fate {
	d, f := dice(c.Seed, "call/"+o.Task+"/"+strconv.Itoa(n)), c.Faults
	var out fate
	for _, r := range []struct {
		fault string
		rate  float64
	}{{"busy", f.Busy}, {"broken", f.Broken}, {"stall", f.Stall}, {"refuse", f.Refused}, {"ambiguous", f.Ambiguous}, {"hang", f.Hang}} {
		if hit := d.Float64() < r.rate; hit && out.fault == "" {
			out.fault = r.fault
		}
	}
	out.sync = d.Float64() < f.Sync
	out.html = d.Float64() < 0.5
	out.harsh = d.Float64() < 0.5
	for _, w := range directives(o.Prompt) {
		switch w.word {
		case "busy", "broken", "stall", "ambiguous", "hang":
			if n < w.times() {
				out.fault = w.word
			}
		case "slow":
			out.slow = w.duration()
		case "sync":
			out.sync = true
		}
	}
	return out
}

// refused is the code with which a directive refuses one task; empty = it does not.
func refused(o Order) string {
	for _, w := range directives(o.Prompt) {
		if w.word == "refuse" && w.hits(o.Place) {
			return w.or("unsupportedParameter")
		}
	}
	return ""
}

// heavy is how much a directive adds to a file, in MiB.
func heavy(o Order) int {
	for _, w := range directives(o.Prompt) {
		if w.word == "heavy" && w.hits(o.Place) {
			return min(w.times(), maxHeavy)
		}
	}
	return 0
}

// maxHeavy keeps a file in base64 under the 64 MiB that a body may have.
const maxHeavy = 44

// directive is one [[word:places argument]] of a prompt.
type directive struct {
	word   string
	places []int // from 1; nil = all
	arg    string
}

func directives(prompt string) []directive {
	var out []directive
	for {
		_, rest, found := strings.Cut(prompt, "[[")
		inner, after, closed := strings.Cut(rest, "]]")
		if !found || !closed {
			return out
		}
		prompt = after
		head, arg, _ := strings.Cut(strings.TrimSpace(inner), " ")
		word, list, some := strings.Cut(head, ":")
		d := directive{word: word, arg: strings.TrimSpace(arg)}
		for _, s := range strings.Split(list, ",") {
			if n, err := strconv.Atoi(s); some && err == nil {
				d.places = append(d.places, n)
			}
		}
		out = append(out, d)
	}
}

func (w directive) hits(place int) bool { return w.places == nil || slices.Contains(w.places, place) }

func (w directive) or(fallback string) string {
	if w.arg == "" {
		return fallback
	}
	return w.arg
}

// duration is 1 s if the argument is none.
func (w directive) duration() time.Duration {
	d, err := time.ParseDuration(w.arg)
	if err != nil {
		return time.Second
	}
	return d
}

func (w directive) times() int {
	n, err := strconv.Atoi(w.arg)
	if err != nil {
		return 1
	}
	return n
}
