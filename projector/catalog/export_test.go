package catalog

import (
	"database/sql"
	"testing"
)

// Exec runs a statement as the writer, to show what the schema refuses.
func Exec(c *Catalog, statement string) (sql.Result, error) { return c.writer.Exec(statement) }

// Pragma is a setting of the writer.
func Pragma(t *testing.T, c *Catalog, name string) (value string) {
	t.Helper()
	if err := c.writer.QueryRow("pragma " + name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
