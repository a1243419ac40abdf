// Package doctor looks at what genstream rests on, from outside: NATS, the bucket,
// the disk, the webhook address, the providers' keys.
//
// # Usage
//
// Each check is a function of the real thing, and returns findings. A finding is
// one line: what was looked at, how it is, what was seen, and what to do.
//
// # Guarantees
//
// Nothing is changed, made or bought. The bucket gets one file and loses it again;
// the ingress is asked with a token that cannot be right; a provider is asked about
// a task that nobody has ever sent. No finding holds a secret.
package doctor

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Level is how a thing is.
type Level string

// The levels. Broken: something that was promised, or that users are waiting for,
// does not hold. Warning: it may be as intended, or may become a trouble.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Broken  Level = "broken"
)

// Finding is what one check saw.
type Finding struct {
	Check string `json:"check"`        // "NATS", "bucket", …
	Level Level  `json:"level"`        // how it is
	Seen  string `json:"seen"`         // what was seen, in one line
	Do    string `json:"do,omitempty"` // what to do about it; empty if it is ok
}

// Report is all findings, in the order in which things rest on each other.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Add takes findings in.
func (r *Report) Add(f ...Finding) { r.Findings = append(r.Findings, f...) }

// Broken is how many findings are of level Broken.
func (r *Report) Broken() int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == Broken {
			n++
		}
	}
	return n
}

// Print writes the report for a person, a line each.
func (r *Report) Print(w io.Writer) {
	for _, f := range r.Findings {
		line := fmt.Sprintf("  %-7s  %-9s  %s", f.Level, f.Check, oneLine(f.Seen))
		if f.Do != "" {
			line += " → " + f.Do
		}
		fmt.Fprintln(w, line)
	}
}

// oneLine takes the line ends out of what others said.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: OK, Seen: fmt.Sprintf(format, args...)}
}

func warning(check, do, format string, args ...any) Finding {
	return Finding{Check: check, Level: Warning, Seen: fmt.Sprintf(format, args...), Do: do}
}

func broken(check, do, format string, args ...any) Finding {
	return Finding{Check: check, Level: Broken, Seen: fmt.Sprintf(format, args...), Do: do}
}

// short is a duration for a person.
func short(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
