package verify

import (
	"fmt"
	"io"
	"slices"

	"github.com/genstream/genstream/events"
)

// Report is what a verification looked at and what is wrong.
type Report struct {
	Claims  []*Claim `json:"claims"`            // in the order of the invariants
	Orphans []string `json:"orphans,omitempty"` // blob keys older than the grace period that no commit names
}

// Claim is one invariant of the design.
type Claim struct {
	Invariant string    `json:"invariant"` // "I3"
	Says      string    `json:"says"`
	Looked    int       `json:"looked"` // how many things were looked at
	Of        string    `json:"of"`     // what they are
	Broken    []Finding `json:"broken"` // the first of them, at most maxFindings
	Count     int       `json:"count"`  // all of them
	Skipped   string    `json:"skipped,omitempty"`
}

// Finding is one violation.
type Finding struct {
	ID     events.ID `json:"id,omitempty"`
	Detail string    `json:"detail"`
	Do     string    `json:"do,omitempty"` // what an operator can do about it
}

// maxFindings is how many violations of one invariant are listed; all are counted.
const maxFindings = 20

// claims are all invariants that stored data can show, in the design's words.
var claims = []struct{ invariant, of, says string }{
	{"I3", "commits", "versions of an ID are 1..n without a gap, each chained to the one before"},
	{"I4", "generations", "the first event is requested"},
	{"I5", "outputs", "each slot ends at most once"},
	{"I6", "completions", "nothing follows completed, and it carries the whole fold"},
	{"I7", "completions", "artifact_count = good outputs = artifact rows"},
	{"I8", "rows", "every row equals the fold of its subject, and every completed ID has its row"},
	{"I9", "rows", "no row for an ID that is not completed"},
	{"I10", "guards", "rows never change: the catalog refuses it"},
	{"I11", "files", "every artifact's file is there with its recorded size and sha256, and every file that a request names"},
	{"I12", "dumps", "a rebuild gives a byte-identical dump"},
	{"I13", "blobs", "no orphan file older than the grace period"},
	{"I20", "subjects", "every subject is well formed"},
	{"I21", "positions", "stream fingerprint and position agree"},
	{"I14", "create calls", "one create call per claimed attempt, another only after a definite no, no task made twice, none for a rescue"},
	{"I23", "provider outputs", "every output that the provider finished in time is an artifact"},
	{"I24", "bills", "the catalog's cost equals the provider's bill"},
}

func newReport() *Report {
	r := &Report{}
	for _, c := range claims {
		r.Claims = append(r.Claims, &Claim{Invariant: c.invariant, Of: c.of, Says: c.says, Broken: []Finding{}})
	}
	return r
}

// Claim is the claim of an invariant. It panics for one that is not checked.
func (r *Report) Claim(invariant string) *Claim {
	i := slices.IndexFunc(r.Claims, func(c *Claim) bool { return c.Invariant == invariant })
	return r.Claims[i]
}

// Violations is how many things are wrong in all.
func (r *Report) Violations() int {
	n := 0
	for _, c := range r.Claims {
		n += c.Count
	}
	return n
}

func (r *Report) looked(invariant string, n int) { r.Claim(invariant).Looked += n }

func (r *Report) broken(invariant string, id events.ID, do, format string, args ...any) {
	c := r.Claim(invariant)
	c.Count++
	if len(c.Broken) < maxFindings {
		c.Broken = append(c.Broken, Finding{ID: id, Detail: fmt.Sprintf(format, args...), Do: do})
	}
}

func (r *Report) skip(why string, invariants ...string) {
	for _, i := range invariants {
		r.Claim(i).Skipped = why
	}
}

// Print writes the report for a person.
func (r *Report) Print(w io.Writer) {
	for _, c := range r.Claims {
		switch {
		case c.Skipped != "":
			fmt.Fprintf(w, "  %-4s  skipped  %s (%s)\n", c.Invariant, c.Says, c.Skipped)
		case c.Count == 0:
			fmt.Fprintf(w, "  %-4s  ok       %s: %d %s\n", c.Invariant, c.Says, c.Looked, c.Of)
		default:
			fmt.Fprintf(w, "  %-4s  BROKEN   %s: %d of %d %s\n", c.Invariant, c.Says, c.Count, c.Looked, c.Of)
			for _, f := range c.Broken {
				of := ""
				if f.ID != "" {
					of = "generation=" + string(f.ID) + " "
				}
				fmt.Fprintf(w, "          %s%s\n", of, f.Detail)
				if f.Do != "" {
					fmt.Fprintf(w, "          -> %s\n", f.Do)
				}
			}
			if more := c.Count - len(c.Broken); more > 0 {
				fmt.Fprintf(w, "          and %d more\n", more)
			}
		}
	}
}
