package floor

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// journal is a log of lines in one file. One sync, of the file system, makes all
// lines durable that were appended before it began, and all files that were written
// before it. The next sync begins when it has ended.
type journal struct {
	file           *os.File
	syncs, appends atomic.Int64
	wake           chan struct{} // holds one if there is something to write
	done           chan struct{} // closed when the writer has ended

	mu     sync.Mutex // guards what follows
	lines  []byte     // appended and not written
	after  *round     // the sync that makes them durable
	failed error      // of a sync: final
}

// round is one sync, and who waits for it.
type round struct {
	done chan struct{}
	err  error
}

func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		file.Close()
		return nil, err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		file.Close()
		return nil, err
	}
	j := &journal{file: file, wake: make(chan struct{}, 1), done: make(chan struct{}), after: &round{done: make(chan struct{})}}
	go j.write()
	return j, nil
}

// append returns once the line, and every file written before, is on disk.
func (j *journal) append(line []byte) error {
	j.appends.Add(1)
	j.mu.Lock()
	j.lines = append(j.lines, line...)
	mine := j.after
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default: // it is awake
	}
	<-mine.done
	return mine.err
}

// write is the only one that writes to the file.
func (j *journal) write() {
	defer close(j.done)
	var spare []byte
	for range j.wake {
		j.mu.Lock()
		lines, now := j.lines, j.after
		j.lines, j.after = spare[:0], &round{done: make(chan struct{})}
		now.err = j.failed
		j.mu.Unlock()
		if now.err == nil {
			now.err = j.sync(lines)
		}
		if now.err != nil {
			j.mu.Lock()
			j.failed = now.err
			j.mu.Unlock()
		}
		close(now.done)
		spare = lines
	}
}

func (j *journal) sync(lines []byte) error {
	if _, err := j.file.Write(lines); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	j.syncs.Add(1)
	if err := unix.Syncfs(int(j.file.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// close ends the writer. Nobody may append any more.
func (j *journal) close() error {
	close(j.wake)
	<-j.done
	return j.file.Close()
}
