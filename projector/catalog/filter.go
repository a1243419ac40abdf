package catalog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
)

// ErrFilter is a filter out of its bounds; the text begins with the field. HTTP answers 422.
var ErrFilter = errors.New("malformed filter")

// Bounds of one page.
const (
	DefaultLimit = 50
	MaxLimit     = 200
)

// GenerationFilter selects generations; zero fields select all.
type GenerationFilter struct {
	Model  string
	Failed *bool     // true: without an artifact, false: with one
	Label  Label     // that the request carried
	From   time.Time // created at or after
	To     time.Time // created before
	Limit  int       // 1 to MaxLimit; 0 = DefaultLimit
	After  string    // cursor: Next of the page before
}

// ArtifactFilter selects artifacts; zero fields select all.
type ArtifactFilter struct {
	Model      string
	Generation events.ID
	Label      Label     // that the generation's request carried
	From       time.Time // created at or after
	To         time.Time // created before
	Limit      int       // 1 to MaxLimit; 0 = DefaultLimit
	After      string    // cursor: Next of the page before
}

// Label is one label of a request; without Key it selects nothing in particular.
type Label struct{ Key, Value string }

// list is a query in the making: the statement depends only on which filters are
// set, and only what they say is bound.
type list struct {
	sql   strings.Builder
	args  []any
	limit int
	hash  [8]byte
	walks bool // past rows that it does not return, and nobody knows how many
}

// within is the context of the query.
func (l *list) within(ctx context.Context) context.Context {
	if l.walks {
		return ctx
	}
	return brief(ctx)
}

// where adds a condition.
func (l *list) where(condition string, args ...any) {
	if strings.Contains(l.sql.String(), " where ") {
		l.sql.WriteString(" and ")
	} else {
		l.sql.WriteString(" where ")
	}
	l.sql.WriteString(condition)
	l.args = append(l.args, args...)
}

// order adds the range of time and the place to go on from, as one range of the
// key (created, id), which is the order as well. Both ends are always bound, so
// that even the list of everything is a search and never a scan.
func (l *list) order(created, id string, from, to time.Time, after place) {
	upper := place{created: math.MaxInt64}
	if !to.IsZero() {
		upper.created = to.UnixMicro()
	}
	// The smaller of the two: a forged cursor does not lead out of the range.
	if after.id != "" && after.created < upper.created {
		upper = after
	}
	lower := int64(math.MinInt64)
	if !from.IsZero() {
		lower = from.UnixMicro()
	}
	l.where("("+created+", "+id+") < (?, ?)", upper.created, upper.id)
	l.where(created+" >= ?", lower)
	fmt.Fprintf(&l.sql, " order by %s desc, %s desc limit ?", created, id)
	l.args = append(l.args, l.limit+1) // one more tells whether there is a next page
}

func (f GenerationFilter) list() (*list, error) {
	failed := f.Failed != nil && *f.Failed
	selected := fmt.Sprintf("generations %q %t %t", f.Model, f.Failed != nil, failed)
	after, l, err := begin(selected, f.Limit, f.After, f.Label, f.From, f.To, checkGenerationID)
	if err != nil {
		return nil, err
	}
	created, id := "g.created_at", "g.id"
	l.sql.WriteString("select " + generationColumns + " from ")
	switch {
	case f.Label.Key != "":
		// cross join: SQLite keeps the order as written.
		l.sql.WriteString("generation_labels l cross join generations g on g.id = l.generation_id")
		l.where("l.key = ? and l.value = ?", f.Label.Key, f.Label.Value)
		created, id = "l.created_at", "l.generation_id"
	case f.Model != "" && failed:
		l.sql.WriteString("generations g indexed by generations_model_failed")
	case f.Model != "":
		l.sql.WriteString("generations g indexed by generations_model")
	case failed:
		l.sql.WriteString("generations g indexed by generations_failed")
	default:
		l.sql.WriteString("generations g indexed by generations_newest")
	}
	l.walks = f.Failed != nil && !failed || f.Label.Key != "" && (f.Model != "" || failed)
	if f.Model != "" {
		l.where("g.model = ?", f.Model)
	}
	switch {
	case failed:
		l.where("g.artifact_count = 0")
	case f.Failed != nil: // most are: walking past the others is cheaper than an index of nearly all
		l.where("g.artifact_count > 0")
	}
	l.order(created, id, f.From, f.To, after)
	return l, nil
}

func (f ArtifactFilter) list() (*list, error) {
	selected := fmt.Sprintf("artifacts %q %q", f.Model, f.Generation)
	after, l, err := begin(selected, f.Limit, f.After, f.Label, f.From, f.To, checkArtifactID)
	if err != nil {
		return nil, err
	}
	created, id := "a.created_at", "a.id"
	l.sql.WriteString("select " + artifactColumns + " from ")
	switch {
	case f.Generation != "": // at most events.MaxCount rows, so first
		l.sql.WriteString("artifacts a indexed by artifacts_generation")
		l.where("a.generation_id = ?", string(f.Generation))
		if f.Label.Key != "" {
			l.where("exists (select 1 from artifact_labels l where l.key = ? and l.value = ? and l.created_at = a.created_at and l.artifact_id = a.id)",
				f.Label.Key, f.Label.Value)
		}
	case f.Label.Key != "":
		l.sql.WriteString("artifact_labels l cross join artifacts a on a.id = l.artifact_id")
		l.where("l.key = ? and l.value = ?", f.Label.Key, f.Label.Value)
		created, id = "l.created_at", "l.artifact_id"
	case f.Model != "":
		l.sql.WriteString("artifacts a indexed by artifacts_model")
	default:
		l.sql.WriteString("artifacts a indexed by artifacts_newest")
	}
	l.walks = f.Label.Key != "" && f.Model != "" && f.Generation == ""
	if f.Model != "" {
		l.where("a.model = ?", f.Model)
	}
	l.order(created, id, f.From, f.To, after)
	return l, nil
}

// begin checks what both filters share and reads the cursor. selected names the
// list and its filter in all that may not change from page to page, except for
// label and times, which begin adds.
func begin(selected string, limit int, cursor string, label Label, from, to time.Time, checkID func(string) error) (place, *list, error) {
	if limit == 0 {
		limit = DefaultLimit
	}
	if limit < 1 || limit > MaxLimit {
		return place{}, nil, fmt.Errorf("limit: want 1 to %d: %w", MaxLimit, ErrFilter)
	}
	if err := label.check(); err != nil {
		return place{}, nil, err
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return place{}, nil, fmt.Errorf("from: want a time before to: %w", ErrFilter)
	}
	l := &list{limit: limit}
	l.hash = filterHash(fmt.Sprintf("%s %q %q %d %d", selected, label.Key, label.Value, from.UnixMicro(), to.UnixMicro()))
	if cursor == "" {
		return place{}, l, nil
	}
	after, err := parseCursor(cursor, l.hash, checkID)
	return after, l, err
}

func (l Label) check() error {
	if l.Key == "" {
		if l.Value != "" {
			return fmt.Errorf("label: want a key with the value: %w", ErrFilter)
		}
		return nil
	}
	if len(l.Key) > events.MaxLabelKey || strings.Trim(l.Key, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
		return fmt.Errorf("label: want a key of [a-z0-9_.-]{1,%d}: %w", events.MaxLabelKey, ErrFilter)
	}
	if len(l.Value) > events.MaxLabel {
		return fmt.Errorf("label: want a value of at most %d bytes: %w", events.MaxLabel, ErrFilter)
	}
	return nil
}
