package events_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
)

// fox is the generation of most tests.
const fox events.ID = "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1c00"

func TestParseIDTakesTheCanonicalFormOnly(t *testing.T) {
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"version 7", string(fox), true},
		{"version 8", "01981f2e-7c2a-8b31-8c4e-5a0f3d2b1c00", true},
		{"variant a", "01981f2e-7c2a-7b31-ac4e-5a0f3d2b1c00", true},
		{"variant b", "01981f2e-7c2a-7b31-bc4e-5a0f3d2b1c00", true},
		{"empty", "", false},
		{"version 4", "01981f2e-7c2a-4b31-9c4e-5a0f3d2b1c00", false},
		{"version 1", "01981f2e-7c2a-1b31-9c4e-5a0f3d2b1c00", false},
		{"version 0", "00000000-0000-0000-0000-000000000000", false},
		{"max UUID", "ffffffff-ffff-ffff-ffff-ffffffffffff", false},
		{"Microsoft variant", "01981f2e-7c2a-7b31-cc4e-5a0f3d2b1c00", false},
		{"NCS variant", "01981f2e-7c2a-7b31-7c4e-5a0f3d2b1c00", false},
		{"upper case", strings.ToUpper(string(fox)), false},
		{"one upper-case digit", "01981F2e-7c2a-7b31-9c4e-5a0f3d2b1c00", false},
		{"no dashes", strings.ReplaceAll(string(fox), "-", ""), false},
		{"no dashes, right length", "01981f2e07c2a07b3109c4e05a0f3d2b1c00", false},
		{"braces", "{" + string(fox) + "}", false},
		{"urn", "urn:uuid:" + string(fox), false},
		{"one too short", string(fox[:35]), false},
		{"one too long", string(fox) + "0", false},
		{"very long", strings.Repeat(string(fox), 1000), false},
		{"wildcard *", "*", false},
		{"wildcard >", ">", false},
		{"wildcard in place of a digit", "*1981f2e-7c2a-7b31-9c4e-5a0f3d2b1c00", false},
		{"full wildcard at the end", "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1c0>", false},
		{"dots for dashes", strings.ReplaceAll(string(fox), "-", "."), false},
		{"dot in place of a digit", "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1.00", false},
		{"slash", "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1/00", false},
		{"parent directory", "../../../../../../../../../etc/passwd", false},
		{"NUL", "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1c0\x00", false},
		{"NUL behind", string(fox) + "\x00", false},
		{"line break behind", string(fox) + "\n", false},
		{"space before", " " + string(fox[:35]), false},
		{"not a digit", "01981f2g-7c2a-7b31-9c4e-5a0f3d2b1c00", false},
		{"Arabic digit", "٠981f2e-7c2a-7b31-9c4e-5a0f3d2b1c00", false},
		{"full-width digits", "０1981f2e-7c2a-7b31-9c4e-5a0f3d2b1", false},
		{"en dash", "01981f2e–7c2a-7b31-9c4e-5a0f3d2b1c", false},
		{"invalid UTF-8", "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1c0\xff", false},
		{"invalid UTF-8 as variant", "01981f2e-7c2a-7b31-\xffc4e-5a0f3d2b1c00", false},
		{"percent-encoded", "01981f2e%2D7c2a-7b31-9c4e-5a0f3d2b1c", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := events.ParseID(c.in)
			if c.ok {
				if err != nil || string(id) != c.in {
					t.Fatalf("ParseID(%q) = %q, %v", c.in, id, err)
				}
				return
			}
			if !errors.Is(err, events.ErrID) || id != "" {
				t.Fatalf("ParseID(%q) = %q, %v; want ErrID", c.in, id, err)
			}
			if len(c.in) > 2 && strings.Contains(err.Error(), c.in) {
				t.Errorf("the error repeats hostile input: %v", err)
			}
		})
	}
}

func TestParseArtifactID(t *testing.T) {
	for _, slot := range []int{0, 1, 9, 10, events.MaxCount - 1} {
		id, got, err := events.ParseArtifactID(events.ArtifactID(fox, slot))
		if err != nil || id != fox || got != slot {
			t.Errorf("slot %d comes back as %s %d, %v", slot, id, got, err)
		}
	}
	for _, s := range []string{
		"", "-", "-0", string(fox), string(fox) + "-", string(fox) + "0", string(fox) + "-00", string(fox) + "-01",
		string(fox) + "-20", string(fox) + "-99", string(fox) + "-100", string(fox) + "--1", string(fox) + "-+1",
		string(fox) + "- 1", string(fox) + "-1 ", string(fox) + "-1\x00", string(fox) + "-\x00", string(fox) + "-a",
		string(fox) + "-*", string(fox) + "->", string(fox) + ".1", string(fox) + "/1", string(fox) + "-٣",
		strings.ToUpper(string(fox)) + "-1", "01981f2e-7c2a-4b31-9c4e-5a0f3d2b1c00-1", "x" + string(fox) + "-1",
	} {
		if id, slot, err := events.ParseArtifactID(s); !errors.Is(err, events.ErrID) || id != "" || slot != 0 {
			t.Errorf("ParseArtifactID(%q) = %q, %d, %v; want ErrID", s, id, slot, err)
		}
	}
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestTaskIDHasTheShapeOfUUIDv4AndIsNeverSharedByTwoTries(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []events.ID{fox, "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1c01"} {
		for slot := range events.MaxCount {
			for try := 1; try <= events.MaxTries; try++ {
				task := events.TaskID(id, slot, try)
				if !uuid4.MatchString(task) {
					t.Fatalf("%q is no UUIDv4", task)
				}
				if seen[task] {
					t.Fatalf("%q names two tries", task)
				}
				seen[task] = true
			}
		}
	}
	// The derivation is a promise to every task that a provider has: with another
	// one, a restart after an upgrade would ask about tasks that nobody has.
	if got, want := events.TaskID(fox, 3, 2), "7e5d6efa-e6c6-4e7e-a60b-cc17c196c2c9"; got != want {
		t.Errorf("TaskID is %s, was %s", got, want)
	}
}

func TestDerivedIDSaysNothingElse(t *testing.T) {
	id := events.DerivedID("alice", "order-17")
	if _, err := events.ParseID(string(id)); err != nil || id[14] != '8' || !id.Time().IsZero() {
		t.Errorf("%s: %v, time %v", id, err, id.Time())
	}
	if id != events.DerivedID("alice", "order-17") {
		t.Error("the same key gives another ID")
	}
	// Neither of two neighbours may take the other's generation.
	for _, other := range []events.ID{
		events.DerivedID("bob", "order-17"), events.DerivedID("alice", "order-18"), events.DerivedID("", "alice/order-17"),
		events.DerivedID("alice/order", "-17"), events.DerivedID("alice/", "order-17"), events.DerivedID("", "order-17"),
	} {
		if other == id {
			t.Errorf("another requester or key gives %s too", id)
		}
	}
	if got, want := id, events.ID("1b6503f4-4e23-823c-ab3f-50ba99d2c9b2"); got != want {
		t.Errorf("DerivedID is %s, was %s", got, want)
	}
}

func TestSubmittedIDCarriesTheTimeOfItsSubmission(t *testing.T) {
	stored := time.Date(2026, 7, 1, 12, 30, 15, 123_456_789, time.UTC)
	id := events.SubmittedID("queue", 42, stored)
	if _, err := events.ParseID(string(id)); err != nil || id[14] != '7' {
		t.Errorf("%s: %v", id, err)
	}
	if !id.Time().Equal(stored.Truncate(time.Millisecond)) {
		t.Errorf("time is %v, want %v", id.Time(), stored)
	}
	if id != events.SubmittedID("queue", 42, stored.In(time.FixedZone("", 3600))) {
		t.Error("a redelivery finds another generation")
	}
	if id == events.SubmittedID("queue", 43, stored) || id == events.SubmittedID("other", 42, stored) {
		t.Error("two submissions share a generation")
	}
	if a, b := id, events.SubmittedID("queue", 1, stored.Add(time.Millisecond)); a >= b {
		t.Errorf("%s does not sort before %s", a, b)
	}
}

func TestTimeOfWhatIsNoIDIsZero(t *testing.T) {
	for _, id := range []events.ID{"", "7", "01981f2e-7c2a-4b31-9c4e-5a0f3d2b1c00", "zz981f2e-7c2a-7b31-9c4e-5a0f3d2b1c00"} {
		if !id.Time().IsZero() {
			t.Errorf("%q has time %v", id, id.Time())
		}
	}
	if want := time.UnixMilli(0x01981f2e7c2a).UTC(); fox.Time() != want {
		t.Errorf("time is %v, want %v", fox.Time(), want)
	}
}

// FuzzID: what is accepted is safe in a subject, a path, a header and a URL, and
// has one spelling.
func FuzzID(f *testing.F) {
	for _, s := range []string{string(fox), events.ArtifactID(fox, 19), events.InputKey(shaA), "gen.*", ">", string(fox) + "\r\n", "inputs/../x", string(fox) + "-07", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := events.ParseID(s); err == nil {
			if string(id) != s || len(s) != 36 || strings.Trim(s, "0123456789abcdef-") != "" {
				t.Errorf("%q is an ID", s)
			}
			id.Time()
		} else if !errors.Is(err, events.ErrID) || id != "" {
			t.Errorf("%q: %q, %v", s, id, err)
		}
		if id, slot, err := events.ParseArtifactID(s); err == nil {
			if events.ArtifactID(id, slot) != s || slot < 0 || slot >= events.MaxCount {
				t.Errorf("%q is an artifact's ID: %s, %d", s, id, slot)
			}
			if _, err := events.ParseID(string(id)); err != nil {
				t.Errorf("%q is an artifact of %q", s, id)
			}
		} else if !errors.Is(err, events.ErrID) {
			t.Errorf("%q: %v", s, err)
		}
		if sum, ok := events.ParseInputKey(s); ok && (events.InputKey(sum) != s || len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "") {
			t.Errorf("%q is the key of an input", s)
		}
	})
}
