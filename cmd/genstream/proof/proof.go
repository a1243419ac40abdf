// Package proof counts what the long tests of this repository have tried, and
// plans what they try next. It does no I/O: `genstream prove` does.
//
// # Usage
//
// A long test logs one line that Told reads:
//
//	proof: kind=crashes cases=120 violations=0 next=120 acknowledged=2310
//
// The verb makes a Line of it, one JSON object, and appends it to docs/proof.jsonl.
// Read reads that file, Add adds its lines up, Plan says which kind of test comes
// next, Print and Table show the sums.
//
// # Guarantees
//
// What a line says holds for the code that was tested and no other: lines whose
// core is another one than that of the checkout are added up apart. Each kind has a
// core of its own, and each fuzz target: a digest of the source that its test rests
// on, without the comments. It needs no history, and survives a rebase. Tests are not
// of it: what was shown once was shown.
package proof

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Line is one run of one kind of test: one line of docs/proof.jsonl.
type Line struct {
	At         time.Time        `json:"at"`               // of its end, UTC, in seconds
	Commit     string           `json:"commit"`           // that was checked out, abbreviated; with "-dirty" if the core was changed since
	Core       string           `json:"core"`             // of what was tested: that of the Kind, or of the Target
	Kind       string           `json:"kind"`             // the Name of a Kind
	Target     string           `json:"target,omitempty"` // of Fuzz: the Target, as its String
	Cases      int64            `json:"cases"`            // tried to their end, 0 or more
	Violations int64            `json:"violations"`       // of what is promised; at least 1 if the test failed
	Seconds    float64          `json:"seconds"`          // it ran, without the time to build it
	Next       int64            `json:"next"`             // the case that the next run begins with; of Fuzz, nothing
	Figures    map[string]int64 `json:"figures,omitempty"`
}

// Report is what a test says of itself in its line.
type Report struct {
	Kind                    string
	Cases, Violations, Next int64
	Figures                 map[string]int64 // whatever else it says; nil if nothing
}

// mark is what a test's line begins with, behind the file and line that t.Logf adds.
const mark = "proof: kind="

var figure = regexp.MustCompile(`([a-z0-9_]+)=(-?\d+)`)

// Told reads a line of a test's output. It reports false if it is another line, or
// lacks one of the words that it must have.
func Told(text string) (Report, bool) {
	_, rest, found := strings.Cut(text, mark)
	if !found {
		return Report{}, false
	}
	var r Report
	r.Kind, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")
	needed := map[string]*int64{"cases": &r.Cases, "violations": &r.Violations, "next": &r.Next}
	for _, m := range figure.FindAllStringSubmatch(rest, -1) {
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return Report{}, false
		}
		if known := needed[m[1]]; known != nil {
			*known = n
			delete(needed, m[1])
			continue
		}
		if r.Figures == nil {
			r.Figures = map[string]int64{}
		}
		r.Figures[m[1]] = n
	}
	return r, r.Kind != "" && len(needed) == 0
}

// String is the line that Told reads.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s cases=%d violations=%d next=%d", mark, r.Kind, r.Cases, r.Violations, r.Next)
	for _, word := range sortedKeys(r.Figures) {
		fmt.Fprintf(&b, " %s=%d", word, r.Figures[word])
	}
	return b.String()
}

// Read reads the text of docs/proof.jsonl. An empty text has no lines; a line that
// cannot be read is an error that names it.
func Read(text []byte) (lines []Line, err error) {
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		var l Line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("read line %d: %w", n, err)
		}
		lines = append(lines, l)
	}
	return lines, in.Err()
}
