// Package store keeps campaigns, their log, what is to be done, the audit log and API tokens in one SQLite file. It
// implements [run.Store].
//
// The database is in WAL mode with synchronous=FULL: a commit that has returned survives a power cut. One connection
// writes; readers have a pool of their own and never wait. What an engine remembers is stored as its present state,
// row by row in JSON, not as the events that led to it, so that a later version of sower goes on from it. The schema
// is migrated when a store is opened.
//
// Multicast keys are sealed with AES-256-GCM under a key in the file "state.key" beside the database, which is
// created with it. Root keys of devices are never stored, of API tokens only a digest.
//
// A campaign that has ended and left the engine stays in the store for ever, with the outcome of each device, but is not
// restored. Its log can be removed ([Store.RemoveLogs]); the audit log never is.
//
// # Backup and restore
//
// [Store.Backup] writes a copy of a consistent state while the engine works; the key file is not in it and has to be
// kept apart. To restore, stop sower, copy the backup over the database, remove the files with the endings -wal and
// -shm beside it, put the key file into its place and start. Campaigns that have sent fragments since the backup
// halt, because the frame counter of their group is not what it was: that is wanted.
//
// The package does not know who may do what, and runs nothing.
package store

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // the driver, too
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sower-fuota/sower/engine/run"
)

//go:embed migrations/*.sql
var migrations embed.FS

var (
	// ErrNewer is returned by [Open] for a database of a later version of sower.
	ErrNewer = errors.New("store: database of a newer version")
	// ErrKey is returned by [Open] when the key file is missing, readable by others, or another one.
	ErrKey = errors.New("store: key file")
	// ErrFenced is returned to an engine when another one has taken the store over.
	ErrFenced = errors.New("store: taken over by another engine")
	// ErrNotFound is returned for a campaign or token that does not exist.
	ErrNotFound = errors.New("store: not found")
)

// Options are for tests and rehearsals; the zero value is for production.
type Options struct {
	// NoSync leaves it to the operating system when to write: a power cut may lose commits, a crash of the process
	// does not.
	NoSync bool
	// OnCommit, if set, is called just before and just after each commit of a round with its number from 1; an
	// error prevents the commit, or is returned although it has been made.
	OnCommit func(n int, before bool) error
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	path    string
	options Options
	write   *sql.DB   // one connection
	conn    *sql.Conn // of write
	read    *sql.DB
	seal    cipher.AEAD

	mu         sync.Mutex
	epoch      int64 // 0 until Restore
	commits    int
	numbers    map[string]int64 // of campaigns
	statements map[string]*sql.Stmt
}

var _ run.Store = (*Store)(nil)

// Open opens the database, creates it if it does not exist, and migrates its schema. The directory must exist.
func Open(ctx context.Context, path string, options Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	// SQLite would create the file for everybody to read.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	// A copy that was put back has the mode that its copier gave it.
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			f.Close()
			return nil, fmt.Errorf("store: others may read it: %w", err)
		}
	}
	f.Close()
	s := &Store{path: path, options: options, numbers: map[string]int64{}, statements: map[string]*sql.Stmt{}}
	sync := "FULL"
	if options.NoSync {
		sync = "OFF"
	}
	s.write, err = open(path, 1, "busy_timeout(10000)", "journal_mode(WAL)", "synchronous("+sync+")", "foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	s.read, err = open(path, max(4, runtime.NumCPU()), "busy_timeout(10000)", "query_only(1)")
	if err == nil {
		err = s.migrate(ctx)
	}
	if err == nil {
		err = s.unlock(ctx)
	}
	if err == nil {
		if s.conn, err = s.write.Conn(ctx); err != nil {
			err = fmt.Errorf("store: %w", err)
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func open(path string, connections int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// migrate brings the schema up to date.
func (s *Store) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.write, files)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("store: %s: %w", s.path, s.remedy(err))
	}
	sources := p.ListSources()
	if know := sources[len(sources)-1].Version; have > know {
		return fmt.Errorf("%w: %s has schema %d, this sower knows %d; install the newer sower again, or restore a backup from before",
			ErrNewer, s.path, have, know)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("store: %s: migration: %w", s.path, s.remedy(err))
	}
	return nil
}

// remedy adds to an error of SQLite what to do about it.
func (s *Store) remedy(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w; make room on the disk of %s and start again: what was committed is kept", err, s.path)
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w; if %s is damaged, restore a backup", err, s.path)
	}
	return err
}

// Close closes the database. What was committed is in it.
func (s *Store) Close() error {
	var errs []error
	s.mu.Lock()
	defer s.mu.Unlock()
	for query, st := range s.statements { // SQLite keeps a connection as long as one of its statements
		errs = append(errs, st.Close())
		delete(s.statements, query)
	}
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	return errors.Join(errs...)
}

// Backup writes a copy of the database to path, where nothing may be yet. The engine does not wait for it.
func (s *Store) Backup(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("store: backup: %w", e)
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	db, err := open(s.path, 1, "busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "vacuum into ?", path); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	if err := errors.Join(f.Sync(), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	return nil
}
