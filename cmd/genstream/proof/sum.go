package proof

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Sum is what all lines of one kind come to.
type Sum struct {
	Kind
	Here       int64   // of the goal, done at this core; what one fuzz target has beyond its own goal is not in it
	Before     int64   // of the same, done at other cores
	Violations int64   // at this core
	Earlier    int64   // violations at other cores
	Seconds    float64 // at this core
	Next       int64   // the case to go on with at this core; of Fuzz, the target that has least
	Minutes    []int64 // of Fuzz: that each target has had at its core
}

// Reached says whether the goal is.
func (s Sum) Reached() bool { return s.Here >= s.Goal }

// Add adds lines up, one sum per kind, in the order of kinds. Lines of kinds that
// are not there are left out; lines of another core count as before.
func Add(kinds []Kind, lines []Line) []Sum {
	sums := make([]Sum, len(kinds))
	for i, k := range kinds {
		s, last := Sum{Kind: k}, time.Time{}
		if k.Name == Fuzz {
			s.Minutes = make([]int64, len(k.Targets))
		}
		for _, l := range lines {
			switch {
			case l.Kind != k.Name:
			case !k.is(l):
				s.Before += k.Done(l)
				s.Earlier += l.Violations
			default:
				s.Violations += l.Violations
				s.Seconds += l.Seconds
				if k.Name == Fuzz {
					s.Minutes[k.target(l)] += l.Cases
					continue
				}
				s.Here += k.Done(l)
				if !l.At.Before(last) {
					s.Next, last = l.Next, l.At
				}
			}
		}
		for i, n := range s.Minutes {
			s.Here += min(n, each)
			if n < s.Minutes[s.Next] {
				s.Next = int64(i)
			}
		}
		sums[i] = s
	}
	return sums
}

// Violations are those at this core.
func Violations(sums []Sum) (n int64) {
	for _, s := range sums {
		n += s.Violations
	}
	return n
}

// Print writes the sums for a terminal.
func Print(w io.Writer, sums []Sum) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "kind\tof this core\tgoal\tbefore\tviolations\ttime\t ")
	for _, s := range sums {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t  %s\n",
			s.Name, Number(s.Here), Number(s.Goal), Number(s.Before), s.Violations, took(s.Seconds), s.Says)
	}
	return t.Flush()
}

// Table is the sums in Markdown, as docs/reliability.md has them.
func Table(sums []Sum) string {
	var b strings.Builder
	b.WriteString("| kind | what is counted | at this core | goal | before | violations at this core | before | time | repeats it |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|--:|---|\n")
	for _, s := range sums {
		// A bar ends a cell, between backticks too (GitHub Flavored Markdown, 4.10).
		repeat := strings.ReplaceAll(s.Command(0, s.Goal, 0), "|", `\|`)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %d | %d | %s | `%s` |\n",
			s.Name, s.Says, Number(s.Here), Number(s.Goal), Number(s.Before), s.Violations, s.Earlier, took(s.Seconds), repeat)
	}
	return b.String()
}

// The marks between which the table stands in docs/reliability.md.
const (
	begin = "<!-- proof: what follows is written by genstream prove -->\n"
	end   = "<!-- proof: end -->\n"
)

// ErrNoMarks is that a text has no place for the table, or several.
var ErrNoMarks = errors.New("there must be one pair of marks for the table")

// Rewrite is text with the table between its marks, ErrNoMarks if it has none.
func Rewrite(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed || strings.Contains(old+after, begin) {
		return "", ErrNoMarks
	}
	return before + begin + "\n" + table + "\n" + end + after, nil
}

// Number is n with a comma after each thousand.
func Number(n int64) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// took is seconds as people say them.
func took(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d == 0:
		return "0"
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 100*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	default:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
}
