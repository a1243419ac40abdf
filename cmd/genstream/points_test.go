package main_test

import (
	"go/ast"
	"strconv"
	"testing"

	"github.com/genstream/genstream/events/fault"
)

// TestFaultPointsAreThoseOfTheTable: what package fault says of the points is what
// is in the code.
func TestFaultPointsAreThoseOfTheTable(t *testing.T) {
	found := map[string]string{} // where
	fset, all := sources(t)
	for _, s := range all {
		if s.test() || s.dir() == "events/fault" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); !ok || pkg.Name != "fault" || sel.Sel.Name == "Arm" {
				return true
			}
			where := fset.Position(call.Pos()).String()
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the point has no name", where)
				return true
			}
			name, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			names := []string{name}
			if sel.Sel.Name == "Around" {
				names = []string{name + ".before", name + ".after"}
			}
			for _, name := range names {
				found[name] = where
			}
			return true
		})
	}
	if len(found) < 30 {
		t.Fatalf("%d points in the code: they are looked for in the wrong place", len(found))
	}
	for _, p := range fault.Points() {
		if found[p.Name] == "" {
			t.Errorf("%s is in the table, and nowhere in the code", p.Name)
		}
		delete(found, p.Name)
		if p.Where == "" || p.Finds == "" {
			t.Errorf("%s: the table does not say where it is, or what a restart finds", p.Name)
		}
	}
	for name, where := range found {
		t.Errorf("%s: %s is not in the table", where, name)
	}
}
