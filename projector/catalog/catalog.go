package catalog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

var (
	// ErrSchema is a file that was built with another schema: it is to be built
	// again from the log.
	ErrSchema = errors.New("the catalog has another schema")

	// ErrDamaged is a file that is no intact SQLite database: it is to be moved
	// aside and built again from the log.
	ErrDamaged = errors.New("the catalog file is damaged")

	// ErrFull is a disk without room for what was to be written: nothing of it is,
	// what was there before is, and the same may succeed later.
	ErrFull = errors.New("the disk of the catalog is full")
)

//go:embed schema.sql
var schema string

// Catalog is one open build. Its queries may be called concurrently; Insert has
// one caller at a time.
type Catalog struct {
	Reader
	path    string
	readers *sql.DB
	writer  *sql.DB // nil if opened for reading only
	totals  *totals // of the last Insert; nil: to be read. Insert's.
}

// Create makes a new, empty build at path, where no file may be, of the stream
// with this fingerprint. When it returns, the file itself is on disk (its folder is not).
func Create(ctx context.Context, path, fingerprint string) (*Catalog, error) {
	// Opening an existing file would add to somebody else's build.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create catalog: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("create catalog: %w", err)
	}
	c, err := open(path, true)
	if err != nil {
		return nil, fmt.Errorf("create catalog: %w", err)
	}
	if err := c.create(ctx, fingerprint); err != nil {
		return nil, errors.Join(fmt.Errorf("create catalog %s: %w", path, err), c.Close())
	}
	return c, nil
}

// create writes the schema in one transaction: a restart finds all of it, with
// its hash, or an empty file, which Open calls ErrSchema.
func (c *Catalog) create(ctx context.Context, fingerprint string) error {
	tx, err := c.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("pragma user_version = %d", schemaHash())); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "update position set fingerprint = ?", fingerprint); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return c.Checkpoint(ctx)
}

// Open opens the build at path for its writer and its readers. It reads only the
// first pages; [Catalog.Check] reads them all. The error wraps ErrDamaged,
// ErrSchema, or fs.ErrNotExist.
func Open(ctx context.Context, path string) (*Catalog, error) {
	return openChecked(ctx, path, true)
}

// OpenReader is Open without a writer, for a second process beside the one that
// writes, and for a build of another schema that can still answer every query of
// this one. The error wraps ErrSchema only if it cannot.
func OpenReader(ctx context.Context, path string) (*Catalog, error) {
	return openChecked(ctx, path, false)
}

func openChecked(ctx context.Context, path string, write bool) (*Catalog, error) {
	if _, err := os.Stat(path); err != nil { // SQLite would report every cause alike
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	c, err := open(path, write)
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	if err := c.checkSchema(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, damaged(err)), c.Close())
	}
	return c, nil
}

// Close ends all queries and closes the file. The writer goes last, because the
// last one to leave folds the write-ahead log into the file, and readers may not.
func (c *Catalog) Close() error {
	err := c.readers.Close()
	if c.writer != nil {
		err = errors.Join(err, c.writer.Close())
	}
	if err != nil {
		return fmt.Errorf("close catalog: %w", err)
	}
	return nil
}

// Path is the file.
func (c *Catalog) Path() string { return c.path }

// Checkpoint moves everything written so far into the file and syncs it.
func (c *Catalog) Checkpoint(ctx context.Context) error {
	if _, err := c.writer.ExecContext(ctx, "pragma wal_checkpoint(truncate)"); err != nil {
		return fmt.Errorf("checkpoint catalog: %w", damaged(err))
	}
	return nil
}

// Unsafe makes writing faster until [Catalog.Settle], for a build that nobody reads:
// it has no journal and is not synced. A restart finds a file that is broken, and is
// to remove it; so is the caller after an error of Insert.
func (c *Catalog) Unsafe(ctx context.Context) error {
	return c.journal(ctx, "off", "off")
}

// Settle ends what Unsafe began: when it returns, everything is on disk, and the
// file is as safe to read and write as any other.
func (c *Catalog) Settle(ctx context.Context) error {
	if err := c.journal(ctx, "wal", "normal"); err != nil {
		return err
	}
	if err := c.Checkpoint(ctx); err != nil {
		return err
	}
	// SQLite syncs what it writes from now on; what it wrote before, it does not.
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("settle catalog: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("settle catalog: %w", err)
	}
	return nil
}

func (c *Catalog) journal(ctx context.Context, mode, sync string) error {
	var got string
	err := c.writer.QueryRowContext(ctx, "pragma journal_mode = "+mode).Scan(&got)
	if err == nil && got != mode { // SQLite says so by its answer alone
		err = fmt.Errorf("it is %s, want %s", got, mode)
	}
	if err == nil {
		_, err = c.writer.ExecContext(ctx, "pragma synchronous = "+sync)
	}
	if err != nil {
		return fmt.Errorf("set journal of catalog: %w", damaged(err))
	}
	return nil
}

// Why each setting:
//   - journal_mode=WAL: readers never wait for the writer nor it for them.
//   - synchronous=NORMAL: no sync per transaction. A power cut costs the newest
//     transactions together with their position, and the log has them.
//   - txlock=immediate: a transaction that begins as a reader and then writes can
//     fail with SQLITE_BUSY without waiting; ours all write.
//   - recursive_triggers: INSERT OR REPLACE would pass the delete triggers otherwise.
//   - busy_timeout: another process may hold the file for a moment (verify, a backup).
//   - cache_size: KiB if negative; the writer walks the ends of six indexes.
//   - wal_autocheckpoint, in pages: four times the default. What changes again and again
//     goes into the file less often, and an index of the log still is one piece (4,062 pages).
//   - stmt_cache_size: statements are few and fixed, so each is prepared once.
const (
	writerSettings = "_journal_mode=WAL&_synchronous=NORMAL&_txlock=immediate&_recursive_triggers=1&_busy_timeout=5000&_cache_size=-65536&_stmt_cache_size=32"
	readerSettings = "mode=ro&_query_only=1&_busy_timeout=5000&_cache_size=-16384&_stmt_cache_size=64"
)

func open(path string, write bool) (*Catalog, error) {
	c := &Catalog{path: path}
	// The path is escaped: a ? or # in a folder's name would end it.
	file := "file:" + (&url.URL{Path: path}).EscapedPath()
	var err error
	if write {
		if c.writer, err = sql.Open("sqlite3", file+"?"+writerSettings); err != nil {
			return nil, err
		}
		c.writer.SetMaxOpenConns(1)
		if _, err := c.writer.Exec("pragma wal_autocheckpoint = 4000"); err != nil {
			return nil, errors.Join(damaged(err), c.writer.Close())
		}
	}
	if c.readers, err = sql.Open("sqlite3", file+"?"+readerSettings); err != nil {
		return nil, err
	}
	n := max(4, runtime.GOMAXPROCS(0))
	c.readers.SetMaxOpenConns(n)
	c.readers.SetMaxIdleConns(n)
	c.q = c.readers
	return c, nil
}

// Check reads the whole file and finds what a disk or a stranger has damaged in
// its structure, which takes seconds per gigabyte. The error wraps ErrDamaged.
// That every row is right as well, only a comparison with the log can say.
func (c *Catalog) Check(ctx context.Context) error {
	var found string
	if err := c.readers.QueryRowContext(ctx, "pragma quick_check(1)").Scan(&found); err != nil {
		return fmt.Errorf("check catalog: %w", damaged(err))
	}
	if found != "ok" {
		return fmt.Errorf("check catalog: %w: %s", ErrDamaged, found)
	}
	return nil
}

// CheckIndexes is Check, and finds rows that an index misses or misplaces. It takes
// several times as long.
func (c *Catalog) CheckIndexes(ctx context.Context) error {
	var found string
	if err := c.readers.QueryRowContext(ctx, "pragma integrity_check(1)").Scan(&found); err != nil {
		return fmt.Errorf("check catalog: %w", damaged(err))
	}
	if found != "ok" {
		return fmt.Errorf("check catalog: %w: %s", ErrDamaged, found)
	}
	return nil
}

func (c *Catalog) checkSchema(ctx context.Context, write bool) error {
	db := c.readers
	if write {
		db = c.writer // opened first: it makes the shared memory that readers need
	}
	var hash int32
	if err := db.QueryRowContext(ctx, "pragma user_version").Scan(&hash); err != nil {
		return err
	}
	if hash == schemaHash() {
		_, err := Reader{db}.Position(ctx)
		return err
	}
	if write {
		return fmt.Errorf("%w: hash %08x, want %08x", ErrSchema, hash, schemaHash())
	}
	return c.answers(ctx)
}

// answers prepares every query there is.
func (c *Catalog) answers(ctx context.Context) error {
	for _, query := range allQueries() {
		stmt, err := c.readers.PrepareContext(ctx, query)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSchema, err)
		}
		if err := stmt.Close(); err != nil {
			return err
		}
	}
	return nil
}

// schemaHash is the value of user_version, which SQLite keeps as 32 bits.
func schemaHash() int32 {
	sum := sha256.Sum256([]byte(schema))
	return int32(binary.BigEndian.Uint32(sum[:4]) >> 1)
}

// damaged marks SQLite's own words for a broken file, and for a full disk. The
// shared memory of a write-ahead log that finds no room is an I/O error.
func damaged(err error) error {
	var e sqlite3.Error
	switch {
	case !errors.As(err, &e):
	case e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case e.Code == sqlite3.ErrFull || e.Code == sqlite3.ErrIoErr && (e.SystemErrno == syscall.ENOSPC || e.SystemErrno == syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
