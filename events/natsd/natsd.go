// Package natsd runs the embedded NATS server: JetStream on a directory, in this
// process, with no listener unless one is asked for. Only cmd and tests import
// it, so that clients of the other packages do not link a server.
//
// # Durability
//
// The server acknowledges an append only once it is on disk (SyncAlways); its
// own default would lose minutes in a power cut. With Config.Gate it does not, and
// package stream's gate syncs instead, many appends at once, before anything leaves
// the process: several times as fast under load. Either way the streams' small
// metadata files are kept a second time, and put back if a power cut has zeroed
// them.
//
// # A full disk
//
// The storage limit is kept below the free disk: at the limit the next append is
// refused at once, while on a full disk the server gives no answer at all. If the
// disk fills up all the same, the server takes no append any more, and would not
// until it is started again; it goes on answering reads. [Server.Keep] waits until
// there is room, and then starts it again within this process: nothing that was
// acknowledged is lost, the connection comes back by itself, and whoever retries
// gets through. [Server.Full] says why meanwhile. A refused write can be
// mended so, because nothing was promised for it. A failed sync cannot: what was
// written before may be gone, and the error is final.
//
// # Reading without the server
//
// [Server.Stored] reads one message out of the log's files: of a large log the server
// itself would read 8 MB for it.
//
// # One process
//
// JetStream takes no lock on its directory, so [Lock] does, with the process ID
// in it for the next one to name.
//
// # Users
//
// The in-process connection may do everything. A listener has two users: admin,
// who may too, and requester, who may publish to genstream.> (but for
// genstream.completed.>) and read replies under _INBOX.>, and nothing else. He is in an account of his own, so that no reply
// subject of his reaches a stream. The in-process connection has an inbox prefix
// of its own, so that a requester cannot read replies that are not for him.
package natsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/genstream/genstream/events/stream"
)

// Config says where the server keeps its data and who may reach it.
type Config struct {
	Dir       string       // of JetStream's store; created if missing
	Listen    string       // host:port for clients; empty: none but this process
	Admin     string       // password of user admin; needed with Listen
	Requester string       // password of user requester; needed with Listen
	MaxStore  int64        // bytes; 0 = what the disk has beside Reserve
	Gate      bool         // acknowledge before the disk has it: SyncLog and SyncAll are called before anything rests on it
	Log       *slog.Logger // warnings and errors of the server; nil: none
}

// Reserve is how many bytes of a disk of total bytes the store leaves free when
// MaxStore is not given: a twentieth, and at most 256 MiB.
func Reserve(total int64) int64 { return min(total/20, 256<<20) }

// Server is the running server.
type Server struct {
	cfg    Config
	conn   *nats.Conn
	dir    string
	blocks *blocks
	stored *stored
	news   chan struct{} // capacity 1: the server has warned of something

	mu     sync.Mutex
	server *server.Server // nil for the moment in which it is started again
	limit  int64          // of its store, in bytes
	full   error          // why it takes no append just now
}

// Start runs the server and connects to it in-process. It returns when JetStream
// has recovered its store.
func Start(cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, dir: cfg.Dir, blocks: logBlocks(cfg.Dir), stored: &stored{blocks: logBlocks(cfg.Dir)}, news: make(chan struct{}, 1)}
	if err := s.launch(); err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	connect := []nats.Option{
		nats.InProcessServer(s), nats.Name("genstream"), nats.CustomInboxPrefix(stream.OwnInbox),
		nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			cfg.Log.Debug("own connection to NATS", "error", err) // the library would print it
		}),
	}
	if cfg.Listen != "" {
		connect = append(connect, nats.UserInfo("admin", cfg.Admin))
	}
	var err error
	if s.conn, err = nats.Connect("", connect...); err != nil {
		s.server.Shutdown()
		return nil, fmt.Errorf("connect to own NATS: %w", err)
	}
	return s, nil
}

// launch starts the server itself.
func (s *Server) launch() error {
	if err := mendMeta(s.dir); err != nil {
		return err
	}
	opts, err := options(s.cfg)
	if err != nil {
		return err
	}
	launched, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	launched.SetLoggerV2(logger{s.cfg.Log.With("part", "nats"), s.news}, false, false, false)
	launched.Start()
	if !launched.ReadyForConnections(5 * time.Minute) { // recovery of a large store happens in here
		launched.Shutdown()
		return errors.New("not ready after 5 minutes")
	}
	if !launched.JetStreamEnabled() {
		launched.Shutdown()
		launched.WaitForShutdown()
		return errors.New("JetStream did not open its store, the log says why")
	}
	if s.cfg.Listen != "" {
		if err := separate(launched); err != nil {
			launched.Shutdown()
			return err
		}
		s.cfg.Listen = launched.Addr().String() // the same one, should it be started again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.limit = launched, opts.JetStreamMaxStore
	return nil
}

func options(cfg Config) (*server.Options, error) {
	opts := &server.Options{
		ServerName: "genstream",
		JetStream:  true, StoreDir: cfg.Dir,
		SyncAlways:         !cfg.Gate,
		JetStreamMaxMemory: 64 << 20,
		JetStreamMaxStore:  cfg.MaxStore,
		MaxPayload:         1 << 20,
		NoSigs:             true, DisableJetStreamBanner: true,
	}
	if opts.JetStreamMaxStore == 0 {
		limit, err := storeLimit(cfg.Dir)
		if err != nil {
			return nil, err
		}
		opts.JetStreamMaxStore = limit
	}
	if cfg.Listen == "" {
		opts.DontListen = true
		return opts, nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", cfg.Listen, err)
	}
	opts.Host = host
	if opts.Port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("listen address %q: %w", cfg.Listen, err)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return opts, users(opts, cfg)
}

// users gives the listener its two users. The passwords are random secrets, so
// the lowest cost of bcrypt is as good as any.
func users(opts *server.Options, cfg Config) error {
	if cfg.Admin == "" || cfg.Requester == "" {
		return errors.New("a listener needs a password for each of its two users")
	}
	apart := server.NewAccount(requesters)
	opts.Accounts = []*server.Account{apart}
	for _, u := range []*server.User{
		{Username: "admin", Password: cfg.Admin},
		{Username: "requester", Password: cfg.Requester, Account: apart, Permissions: &server.Permissions{
			// A completion that he announced would be a lie to whoever listens.
			Publish:   &server.SubjectPermission{Allow: []string{"genstream.>"}, Deny: []string{"genstream.completed.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{stream.Inbox + ">"}},
		}},
	} {
		hash, err := bcrypt.GenerateFromPassword([]byte(u.Password), bcrypt.MinCost)
		if err != nil {
			return fmt.Errorf("password of user %s: %w", u.Username, err)
		}
		u.Password = string(hash)
		opts.Users = append(opts.Users, u)
	}
	return nil
}

// requesters is the account of user requester.
const requesters = "REQUESTERS"

// separate lets requesters ask for what is under genstream.>, and for nothing
// else. Answers to them take a way of the server's own, whatever reply subject a
// requester names: JetStream acknowledges a submission with all rights, and would
// store the acknowledgement in the log if the reply subject were a generation's.
func separate(s *server.Server) error {
	// With a second account the server leaves it to us to enable JetStream for the first.
	main := s.GlobalAccount()
	if err := main.EnableJetStream(nil, nil); err != nil {
		return fmt.Errorf("enable JetStream: %w", err)
	}
	apart, err := s.LookupAccount(requesters)
	if err != nil {
		return fmt.Errorf("look up account %s: %w", requesters, err)
	}
	if err := main.AddServiceExport("genstream.>", []*server.Account{apart}); err != nil {
		return fmt.Errorf("export genstream.>: %w", err)
	}
	if err := apart.AddServiceImport(main, "genstream.>", "genstream.>"); err != nil {
		return fmt.Errorf("import genstream.>: %w", err)
	}
	return nil
}

// storeLimit is what the store holds already plus what is free, less the reserve.
func storeLimit(dir string) (int64, error) {
	free, total, err := Free(dir)
	if err != nil {
		return 0, err
	}
	var used int64
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			used += info.Size()
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure store: %w", err)
	}
	return max(used+free-Reserve(total), 1), nil
}

// Free is the free and the total space of the file system that dir is on, in bytes.
func Free(dir string) (free, total int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize, nil
}

// Conn is the in-process connection. It is closed by Close.
func (s *Server) Conn() *nats.Conn { return s.conn }

// KeepMeta notes the streams' metadata, once they are there and on disk.
func (s *Server) KeepMeta() error { return keepMeta(s.dir) }

// URL is where clients reach the listener, empty without one.
func (s *Server) URL() string {
	running := s.running()
	if running == nil || running.Addr() == nil {
		return ""
	}
	return running.ClientURL()
}

// running is the server, nil while it is started again.
func (s *Server) running() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// InProcessConn implements nats.InProcessConnProvider: connections come back to
// the server that is started again.
func (s *Server) InProcessConn() (net.Conn, error) {
	running := s.running()
	if running == nil {
		return nil, errors.New("NATS is being started again")
	}
	return running.InProcessConn()
}

// Connect opens another in-process connection, for parts that have to be apart.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(opts, nats.InProcessServer(s))...)
}

// Healthy reports why JetStream can no longer be trusted with an append, or nil.
func (s *Server) Healthy(context.Context) error {
	if running := s.running(); running != nil && !running.JetStreamEnabled() {
		return errors.New("JetStream is not enabled: its store failed, see the log, then restart")
	}
	return nil
}

// Close shuts the server down cleanly and waits for it. Connections end first.
func (s *Server) Close() {
	s.conn.Close()
	if running := s.running(); running != nil {
		running.Shutdown()
		running.WaitForShutdown()
	}
}

// logger passes the server's warnings and errors on; its notices are its own affair.
type logger struct {
	log  *slog.Logger
	news chan<- struct{} // is told that there was one
}

func (l logger) Noticef(string, ...any)         {}
func (l logger) Debugf(string, ...any)          {}
func (l logger) Tracef(string, ...any)          {}
func (l logger) Warnf(format string, v ...any)  { l.tell(slog.LevelWarn, format, v) }
func (l logger) Errorf(format string, v ...any) { l.tell(slog.LevelError, format, v) }
func (l logger) Fatalf(format string, v ...any) { l.tell(slog.LevelError, format, v) }

func (l logger) tell(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
	select {
	case l.news <- struct{}{}:
	default:
	}
}
