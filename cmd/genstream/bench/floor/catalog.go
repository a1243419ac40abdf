package floor

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"net/url"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver
)

//go:embed schema.sql
var schema string

// Row is a completed generation, with all that enters the catalog.
type Row struct {
	ID                 string
	Model              string
	Input              []byte // JSON
	Created, Completed time.Time
	Outputs            []Output
}

// Output is one of its outputs.
type Output struct {
	Key  string // of the file
	Seed string // decimal
	Cost int64  // billionths of a dollar
	At   time.Time
}

// Catalog is the SQLite tables that lists would be made from.
type Catalog struct {
	db                     *sql.DB
	mu                     sync.Mutex // guards what follows
	generations, artifacts int
}

// OpenCatalog makes the tables in a new file. Like the product's, it syncs at
// checkpoints only: the log has the rows.
func OpenCatalog(path string) (*Catalog, error) {
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_journal_mode=WAL&_synchronous=NORMAL&_txlock=immediate&_cache_size=-65536&_stmt_cache_size=32")
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(schema); err != nil {
		db.Close()
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	return &Catalog{db: db}, nil
}

// Close closes the file.
func (c *Catalog) Close() error { return c.db.Close() }

// Counts is how many rows were inserted.
func (c *Catalog) Counts() (generations, artifacts int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generations, c.artifacts
}

// Insert adds rows in one transaction.
func (c *Catalog) Insert(ctx context.Context, rows []Row) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("insert rows: %w", err)
	}
	defer tx.Rollback()
	artifacts := 0
	for _, r := range rows {
		if _, err := tx.ExecContext(ctx, "insert into generations values (?, ?, ?, ?, ?, ?)",
			r.ID, r.Model, string(r.Input), len(r.Outputs), r.Created.UnixMicro(), r.Completed.UnixMicro()); err != nil {
			return fmt.Errorf("insert generation=%s: %w", r.ID, err)
		}
		for slot, o := range r.Outputs {
			if _, err := tx.ExecContext(ctx, "insert into artifacts values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
				fmt.Sprintf("%s-%d", r.ID, slot), r.ID, r.Model, o.Key, "image/png", o.Seed, o.Cost, nil, o.At.UnixMicro()); err != nil {
				return fmt.Errorf("insert artifact of generation=%s: %w", r.ID, err)
			}
			artifacts++
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("insert rows: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generations += len(rows)
	c.artifacts += artifacts
	return nil
}
