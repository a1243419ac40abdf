package natsd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/genstream/genstream/events/stream"
)

const (
	lookGap    = 500 * time.Millisecond // between two looks at a full disk
	maxReopens = 20                     // in a row that failed
)

// Keep watches over the store until ctx ends, and then returns nil. When the disk
// has refused a write, or the store has reached a limit that the disk does not set
// any more, it waits for room and starts the server again; then reopened is called,
// to see that the log is whole. Any other failure of the store is final, and
// returned: the process should end.
func (s *Server) Keep(ctx context.Context, reopened func(context.Context) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.news: // nothing goes wrong without a word of the server's
		}
		if err := s.mend(ctx, reopened); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Full says why the store takes no append just now, nil if it does. The error
// wraps stream.ErrFull. Keep must be running.
func (s *Server) Full() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

func (s *Server) mend(ctx context.Context, reopened func(context.Context) error) error {
	for failed := 0; ; {
		trouble := s.trouble()
		s.note(trouble)
		if !errors.Is(trouble, stream.ErrFull) {
			return trouble
		}
		if s.room() {
			s.cfg.Log.Warn("the disk has room again: NATS is started again", "after", trouble)
			err := s.reopen()
			if err == nil {
				if err := reopened(ctx); err != nil {
					return err
				}
				continue
			}
			if failed++; failed == maxReopens {
				return fmt.Errorf("start NATS again: %w", err)
			}
			s.cfg.Log.Warn("NATS did not start again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookGap):
		}
	}
}

// note lets health tell of trouble that will pass.
func (s *Server) note(trouble error) {
	if !errors.Is(trouble, stream.ErrFull) {
		trouble = nil
	}
	s.mu.Lock()
	known := s.full != nil
	s.full = trouble
	s.mu.Unlock()
	switch {
	case trouble != nil && !known:
		s.cfg.Log.Error("nothing is appended until the disk has room", "error", trouble)
	case trouble == nil && known:
		s.cfg.Log.Warn("appends are taken again")
	}
}

// trouble is why the store takes no append, nil if it does. What a restart with
// more room mends wraps stream.ErrFull.
func (s *Server) trouble() error {
	running := s.running()
	if running == nil { // the last start failed
		return fmt.Errorf("%w: the disk of the log was full, and NATS is not started again yet", stream.ErrFull)
	}
	if !running.JetStreamEnabled() {
		return errors.New("JetStream has given its store up, the log says why")
	}
	health := running.Healthz(&server.HealthzOptions{Details: true})
	for _, e := range health.Errors {
		if e.Type == server.HealthzErrorConn { // it is busy, and has not looked at the streams
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.full
		}
	}
	for _, e := range health.Errors {
		// "JetStream stream '$G > GENERATIONS' write error: write /…/1.blk: no space left on device"
		// (nats-server, server/monitor.go): the cause is there as text only.
		_, cause, failed := strings.Cut(e.Error, "write error: ")
		switch {
		case e.Type != server.HealthzErrorStream || !failed:
		case refused(cause):
			return fmt.Errorf("%w: the disk of the log is full (stream %s)", stream.ErrFull, e.Stream)
		default:
			return fmt.Errorf("the store of stream %s failed: %s", e.Stream, cause)
		}
	}
	used, limit, err := s.used()
	if err == nil && used > limit {
		return fmt.Errorf("%w: it has reached %d MiB, its share of the disk", stream.ErrFull, limit>>20)
	}
	return nil
}

// refused says whether the disk had no room for a write. A sync that fails for
// want of room is another matter: what was written before may be lost.
func refused(cause string) bool {
	if strings.HasPrefix(cause, "sync ") || strings.HasPrefix(cause, "fsync ") {
		return false
	}
	return strings.Contains(cause, syscall.ENOSPC.Error()) || strings.Contains(cause, syscall.EDQUOT.Error())
}

// used is how many bytes the store holds, and may hold.
func (s *Server) used() (used, limit int64, err error) {
	running := s.running()
	if running == nil {
		return 0, 0, errors.New("NATS is not running")
	}
	info, err := running.Jsz(nil)
	if err != nil {
		return 0, 0, fmt.Errorf("measure store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(info.Store), s.limit, nil
}

// room says whether a server that is started now can go on for a while: a quarter
// more than the reserve is left.
func (s *Server) room() bool {
	free, total, err := Free(s.dir)
	if err != nil || free < Reserve(total)/4*5 {
		return false
	}
	if s.cfg.MaxStore == 0 {
		return true
	}
	used, limit, err := s.used()
	return err != nil || used <= limit
}

// reopen ends the server and starts another on the same store.
func (s *Server) reopen() error {
	s.mu.Lock()
	old := s.server
	s.server = nil
	s.mu.Unlock()
	if old != nil {
		old.Shutdown()
		old.WaitForShutdown()
	}
	return s.launch()
}
