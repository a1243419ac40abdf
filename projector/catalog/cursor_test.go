package catalog

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
)

const someID = "0190a5c1-7a00-7000-8000-000000000001"

func TestCursorComesBack(t *testing.T) {
	hash := filterHash("x")
	for _, p := range []place{{0, someID}, {1 << 62, someID}, {-1, someID}} {
		got, err := parseCursor(p.cursor(hash), hash, checkGenerationID)
		if err != nil || got != p {
			t.Errorf("%+v came back as %+v, %v", p, got, err)
		}
	}
}

func TestForeignCursorIsRefused(t *testing.T) {
	hash := filterHash("x")
	good := place{1, someID}.cursor(hash)
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	raw[0]++
	for name, cursor := range map[string]string{
		"of another filter":  place{1, someID}.cursor(filterHash("y")),
		"of another version": base64.RawURLEncoding.EncodeToString(raw),
		"of another list":    place{1, events.ArtifactID(someID, 3)}.cursor(hash),
		"without an ID":      place{1, ""}.cursor(hash),
		"SQL for an ID":      place{1, "' or 1=1 --"}.cursor(hash),
		"cut":                good[:len(good)-1],
		"padded":             good + "=",
		"with a line break":  good[:8] + "\n" + good[8:],
		"standard alphabet":  "+/" + good[2:],
		"long":               strings.Repeat("A", 1<<20),
		"not base64":         "page=2",
	} {
		if _, err := parseCursor(cursor, hash, checkGenerationID); !errors.Is(err, ErrCursor) {
			t.Errorf("%s: %v, want ErrCursor", name, err)
		}
	}
}

// Nothing signs a cursor, so one that is made up may name a place outside the
// filter's range: it does not lead there.
func TestForgedCursorStaysInRange(t *testing.T) {
	f := GenerationFilter{From: time.UnixMicro(100), To: time.UnixMicro(200)}
	l, err := f.list()
	if err != nil {
		t.Fatal(err)
	}
	for created, want := range map[int64]int64{150: 150, 200: 200, 201: 200, 1 << 62: 200, 50: 50} {
		f.After = place{created, someID}.cursor(l.hash)
		l, err := f.list()
		if err != nil {
			t.Fatal(err)
		}
		// The bounds: below (created, ID), from, limit.
		if upper, lower := l.args[0], l.args[2]; upper != want || lower != int64(100) {
			t.Errorf("cursor at %d: from %v to %v, want 100 to %d", created, lower, upper, want)
		}
	}
}

// A cursor has one spelling, and whatever else comes is ErrCursor.
func FuzzParseCursor(f *testing.F) {
	hash := filterHash("x")
	f.Add(place{1, someID}.cursor(hash))
	f.Add(place{1, someID}.cursor(filterHash("y")))
	f.Add("")
	f.Add("AQ==")
	f.Add("' or 1=1 --")
	f.Fuzz(func(t *testing.T, cursor string) {
		p, err := parseCursor(cursor, hash, checkGenerationID)
		if err != nil {
			if !errors.Is(err, ErrCursor) || p != (place{}) {
				t.Errorf("%q: %+v, %v", cursor, p, err)
			}
			return
		}
		if p.cursor(hash) != cursor || checkGenerationID(p.id) != nil {
			t.Errorf("%q was read as %+v", cursor, p)
		}
	})
}
