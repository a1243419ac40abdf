package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/projector/catalog"
)

// library is a catalog with 60 generations of every kind, and what is in it.
func library(t *testing.T) (*catalog.Catalog, []catalog.Entry) {
	c := create(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var all []catalog.Entry
	for n := 1; n <= 60; n++ {
		var labels map[string]string
		if rng.IntN(2) == 0 {
			labels = map[string]string{"user": fmt.Sprint(rng.IntN(2)), "team": "a"}
		}
		all = append(all, entry(n, rng.IntN(4), []string{"m", "m2"}[rng.IntN(2)], labels))
	}
	insert(t, c, all...)
	return c, all
}

func filters[T any](each func(model string, label catalog.Label, from, to time.Time) T) (all []T) {
	for _, model := range []string{"", "m", "unknown"} {
		for _, label := range []catalog.Label{{}, {Key: "user", Value: "1"}, {Key: "team", Value: "a"}, {Key: "user", Value: ""}} {
			for _, from := range []time.Time{{}, epoch.Add(5 * time.Second)} {
				for _, to := range []time.Time{{}, epoch.Add(15 * time.Second)} {
					all = append(all, each(model, label, from, to))
				}
			}
		}
	}
	return all
}

func within(at, from, to time.Time) bool {
	return (from.IsZero() || !at.Before(from)) && (to.IsZero() || at.Before(to))
}

func carries(e catalog.Entry, l catalog.Label) bool {
	value, ok := e.Labels[l.Key]
	return l.Key == "" || ok && value == l.Value
}

// newestFirst is the order of every list: what was created last, then by ID, downwards.
func newestFirst(a, b time.Time, idA, idB string) int {
	if c := b.Compare(a); c != 0 {
		return c
	}
	return strings.Compare(idB, idA)
}

func TestGenerationListsAreComplete(t *testing.T) {
	c, all := library(t)
	yes, no := true, false
	for _, f := range filters(func(model string, label catalog.Label, from, to time.Time) catalog.GenerationFilter {
		return catalog.GenerationFilter{Model: model, Label: label, From: from, To: to}
	}) {
		for _, f.Failed = range []*bool{nil, &yes, &no} {
			var want []catalog.Generation
			for _, e := range all {
				g := e.Generation
				if (f.Model == "" || g.Model == f.Model) && (f.Failed == nil || *f.Failed == (g.ArtifactCount == 0)) &&
					carries(e, f.Label) && within(g.CreatedAt, f.From, f.To) {
					want = append(want, g)
				}
			}
			slices.SortFunc(want, func(a, b catalog.Generation) int {
				return newestFirst(a.CreatedAt, b.CreatedAt, string(a.ID), string(b.ID))
			})
			f.After, f.Limit = "", 7
			var got []catalog.Generation
			for {
				page, err := c.Generations(t.Context(), f)
				if err != nil {
					t.Fatalf("%+v: %v", f, err)
				}
				got = append(got, page.Generations...)
				if f.After = page.Next; f.After == "" {
					break
				}
				if len(page.Generations) != 7 {
					t.Fatalf("%+v: a page of %d that is not the last", f, len(page.Generations))
				}
			}
			if a, b := ids(got), ids(want); a != b {
				t.Errorf("%+v:\n got %s\nwant %s", f, a, b)
			}
		}
	}
}

func TestArtifactListsAreComplete(t *testing.T) {
	c, all := library(t)
	seen := 0
	for _, f := range filters(func(model string, label catalog.Label, from, to time.Time) catalog.ArtifactFilter {
		return catalog.ArtifactFilter{Model: model, Label: label, From: from, To: to}
	}) {
		for _, f.Generation = range []events.ID{"", generationID(20), generationID(41)} {
			var want []catalog.Artifact
			for _, e := range all {
				for _, a := range e.Artifacts {
					if (f.Model == "" || a.Model == f.Model) && (f.Generation == "" || a.GenerationID == f.Generation) &&
						carries(e, f.Label) && within(a.CreatedAt, f.From, f.To) {
						want = append(want, a)
					}
				}
			}
			slices.SortFunc(want, func(a, b catalog.Artifact) int { return newestFirst(a.CreatedAt, b.CreatedAt, a.ID, b.ID) })
			f.After, f.Limit = "", 7
			var got []catalog.Artifact
			for {
				page, err := c.Artifacts(t.Context(), f)
				if err != nil {
					t.Fatalf("%+v: %v", f, err)
				}
				got = append(got, page.Artifacts...)
				if f.After = page.Next; f.After == "" {
					break
				}
			}
			seen += len(got)
			a, b := "", ""
			for _, x := range got {
				a += x.ID[34:] + " "
			}
			for _, x := range want {
				b += x.ID[34:] + " "
			}
			if a != b {
				t.Errorf("%+v:\n got %s\nwant %s", f, a, b)
			}
		}
	}
	if seen < 500 {
		t.Errorf("the filters found %d artifacts in all: they prove little", seen)
	}
}

func ids(generations []catalog.Generation) string {
	var b strings.Builder
	for _, g := range generations {
		b.WriteString(string(g.ID)[34:] + " ")
	}
	return b.String()
}

// A page stands still while new rows arrive before it.
func TestPagesStandStill(t *testing.T) {
	c := create(t)
	for n := 1; n <= 6; n++ {
		insert(t, c, entry(n, 1, "m", nil))
	}
	first, err := c.Generations(t.Context(), catalog.GenerationFilter{Limit: 3})
	check(t, err)
	insert(t, c, entry(7, 1, "m", nil))
	second, err := c.Generations(t.Context(), catalog.GenerationFilter{Limit: 3, After: first.Next})
	check(t, err)
	if got := ids(first.Generations) + ids(second.Generations); got != "06 05 04 03 02 01 " {
		t.Errorf("pages are %s", got)
	}
	if second.Next != "" {
		t.Error("the last page, which is full, promises another")
	}
}

func TestBadFilterIsRefused(t *testing.T) {
	c, _ := library(t)
	first, err := c.Generations(t.Context(), catalog.GenerationFilter{Model: "m", Limit: 1})
	check(t, err)
	artifacts, err := c.Artifacts(t.Context(), catalog.ArtifactFilter{Limit: 1})
	check(t, err)
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -14*3600)) // year 10000 in UTC
	for name, tc := range map[string]struct {
		filter catalog.GenerationFilter
		want   error
	}{
		"limit below":              {catalog.GenerationFilter{Limit: -1}, catalog.ErrFilter},
		"limit above":              {catalog.GenerationFilter{Limit: 201}, catalog.ErrFilter},
		"range the wrong way":      {catalog.GenerationFilter{From: epoch, To: epoch}, catalog.ErrFilter},
		"label key":                {catalog.GenerationFilter{Label: catalog.Label{Key: "User", Value: "1"}}, catalog.ErrFilter},
		"label key too long":       {catalog.GenerationFilter{Label: catalog.Label{Key: strings.Repeat("k", 33)}}, catalog.ErrFilter},
		"label without key":        {catalog.GenerationFilter{Label: catalog.Label{Value: "1"}}, catalog.ErrFilter},
		"label value too long":     {catalog.GenerationFilter{Label: catalog.Label{Key: "user", Value: strings.Repeat("v", 129)}}, catalog.ErrFilter},
		"cursor of another filter": {catalog.GenerationFilter{Model: "m2", After: first.Next}, catalog.ErrCursor},
		"cursor of another list":   {catalog.GenerationFilter{After: artifacts.Next}, catalog.ErrCursor},
		"cursor at random":         {catalog.GenerationFilter{After: "AAAA"}, catalog.ErrCursor},
		"cursor, other limit":      {catalog.GenerationFilter{Model: "m", Limit: 200, After: first.Next}, nil},
		"strange but legal":        {catalog.GenerationFilter{Model: "'; drop table generations --\xff", From: time.Unix(-1<<40, 0), To: far}, nil},
	} {
		if _, err := c.Generations(t.Context(), tc.filter); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	page, err := c.Artifacts(t.Context(), catalog.ArtifactFilter{})
	if err != nil || len(page.Artifacts) != catalog.DefaultLimit {
		t.Errorf("a page without a limit has %d, %v", len(page.Artifacts), err)
	}
}

// A query that passes over rows may do so for long, and ends with its reader.
func TestOnlyWalksEndWithTheirReader(t *testing.T) {
	c, _ := library(t)
	yes, no := true, false
	user := catalog.Label{Key: "user", Value: "1"}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for f, walks := range map[catalog.GenerationFilter]bool{
		{}: false, {Model: "m"}: false, {Failed: &yes}: false, {Model: "m", Failed: &yes}: false, {Label: user}: false,
		{Failed: &no}: true, {Model: "m", Failed: &no}: true, {Label: user, Failed: &yes}: true, {Label: user, Model: "m"}: true,
	} {
		if _, err := c.Generations(gone, f); errors.Is(err, context.Canceled) != walks {
			t.Errorf("%+v: %v, walks: %t", f, err, walks)
		}
	}
	for f, walks := range map[catalog.ArtifactFilter]bool{
		{}: false, {Model: "m"}: false, {Label: user}: false, {Generation: generationID(1), Label: user, Model: "m"}: false, {Label: user, Model: "m"}: true,
	} {
		if _, err := c.Artifacts(gone, f); errors.Is(err, context.Canceled) != walks {
			t.Errorf("%+v: %v, walks: %t", f, err, walks)
		}
	}
}
