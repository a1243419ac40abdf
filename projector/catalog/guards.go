package catalog

import (
	"context"
	"fmt"
	"regexp"
)

// trigger finds the name and the text of each trigger of the schema.
var trigger = regexp.MustCompile(`(?s)create trigger (\w+) .*?; end`)

// Guards compares the triggers that keep rows from changing with those of the
// schema. It returns the names of those that are missing or altered, and how many
// there should be.
func (c *Catalog) Guards(ctx context.Context) (broken []string, want int, err error) {
	for _, m := range trigger.FindAllStringSubmatch(schema, -1) {
		want++
		var n int
		err := c.readers.QueryRowContext(ctx, "select count(*) from sqlite_schema where type = 'trigger' and name = ? and lower(sql) = lower(?)", m[1], m[0]).Scan(&n)
		if err != nil {
			return nil, want, fmt.Errorf("read guards: %w", damaged(err))
		}
		if n == 0 {
			broken = append(broken, m[1])
		}
	}
	return broken, want, nil
}
