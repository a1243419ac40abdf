package catalog

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	sorts = regexp.MustCompile(`USE TEMP B-TREE`)
	scans = regexp.MustCompile(`^SCAN `)
)

// plan is the detail column of EXPLAIN QUERY PLAN.
func plan(t *testing.T, c *Catalog, query string) []string {
	t.Helper()
	args := make([]any, strings.Count(query, "?"))
	for i := range args {
		args[i] = 1
	}
	steps, err := collect(t.Context(), c.q, func(s scanner) (detail string, err error) {
		var skip int
		err = s.Scan(&skip, &skip, &skip, &detail)
		return detail, err
	}, "explain query plan "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return steps
}

// Every query that serves a reader is a search in an index that has the order of
// the answer already: nothing is scanned, not even an index, and nothing is sorted.
func TestEveryQueryIsASearch(t *testing.T) {
	c, err := Create(t.Context(), filepath.Join(t.TempDir(), "catalog-1.db"), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	queries := allQueries()
	if len(queries) != 27 {
		t.Errorf("%d queries, want 7 fixed, 12 lists of generations and 8 of artifacts", len(queries))
	}
	for _, query := range queries {
		steps := plan(t, c, query)
		if len(steps) == 0 {
			t.Errorf("no plan: %s", query)
		}
		for _, step := range steps {
			if scans.MatchString(step) || sorts.MatchString(step) {
				t.Errorf("%s\n\t%s", query, step)
			}
		}
	}
}

// The two patterns of TestEveryQueryIsASearch do match what they are after.
func TestPlanPatternsMatch(t *testing.T) {
	c, err := Create(t.Context(), filepath.Join(t.TempDir(), "catalog-1.db"), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := strings.Join(plan(t, c, "select id from generations order by input"), "\n")
	if !scans.MatchString(all) || !sorts.MatchString(all) {
		t.Errorf("a scan that sorts is not seen as one:\n%s", all)
	}
}

// What is read whole, for verify and dump, walks an index in order.
func TestWholeTablesAreNotSorted(t *testing.T) {
	c, err := Create(t.Context(), filepath.Join(t.TempDir(), "catalog-1.db"), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, d := range dumped {
		for _, step := range plan(t, c, "select "+d.columns+" from "+d.table+" order by "+d.key) {
			if sorts.MatchString(step) {
				t.Errorf("%s: %s", d.table, step)
			}
		}
	}
}

// Each index serves a query; one that serves none only costs.
func TestEveryIndexIsUsed(t *testing.T) {
	c, err := Create(t.Context(), filepath.Join(t.TempDir(), "catalog-1.db"), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var plans strings.Builder
	for _, query := range allQueries() {
		plans.WriteString(strings.Join(plan(t, c, query), "\n") + "\n")
	}
	names, err := collect(t.Context(), c.q, func(s scanner) (name string, err error) {
		err = s.Scan(&name)
		return name, err
	}, "select name from sqlite_schema where type = 'index' and sql is not null")
	if err != nil || len(names) == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		if !strings.Contains(plans.String(), "INDEX "+name+" ") {
			t.Errorf("no query uses index %s", name)
		}
	}
}
