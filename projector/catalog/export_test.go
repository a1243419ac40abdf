package catalog

import "database/sql"

// Exec runs a statement as the writer, to show what the schema refuses.
func Exec(c *Catalog, statement string) (sql.Result, error) { return c.writer.Exec(statement) }
