//go:build power

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// volume is an ext4 file system on a loop file, whose power can be cut: what was
// written and not synced is gone, as it is from a real disk.
type volume struct {
	t         *testing.T
	file, dir string
}

// newVolume skips the test, and says so, where there can be no such disk.
func newVolume(t *testing.T) *volume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NO POWER WAS CUT: mounting a file system needs root")
	}
	temp := t.TempDir()
	d := &volume{t: t, file: filepath.Join(temp, "disk"), dir: filepath.Join(temp, "mounted")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(d.file)
	if err == nil {
		err = f.Truncate(1 << 30) // sparse; the store leaves 256 MiB free, creates 512
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", d.file}, {"mount", "-o", "loop", d.file, d.dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("NO POWER WAS CUT: %s: %v %s", command[0], err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", d.dir).Run() })
	return d
}

// cut drops everything that is not on the disk, and comes back with what is.
// Whoever uses the disk is frozen first, so that nobody is told anything in
// between, and killed after.
func (d *volume) cut(p *os.Process) {
	d.t.Helper()
	if err := freeze(p.Pid); err != nil {
		d.t.Fatal(err)
	}
	dir, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (linux, fs/ext4/ext4.h)
	err = unix.IoctlSetPointerInt(int(dir.Fd()), 0x8004587d, 2)
	dir.Close()
	if err != nil {
		d.t.Fatalf("shut the file system down: %v", err)
	}
	if err := p.Kill(); err != nil {
		d.t.Fatal(err)
	}
}

// remount replays the journal, once nobody uses the disk any more.
func (d *volume) remount() {
	d.t.Helper()
	var out []byte
	var err error
	for range 100 {
		if out, err = exec.Command("umount", d.dir).CombinedOutput(); err == nil {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if err == nil {
		out, err = exec.Command("mount", "-o", "loop", d.file, d.dir).CombinedOutput()
	}
	if err != nil {
		d.t.Fatalf("mount again: %v %s", err, out)
	}
}

// freeze stops a process, and returns once none of its threads runs. One that
// waits for the disk may still do so: it stops before it can tell anybody.
func freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	for range 1000 {
		<-time.After(time.Millisecond)
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			return fmt.Errorf("freeze: process %d is gone", pid)
		}
		running := false
		for _, name := range threads {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // the thread has ended
			}
			_, after, _ := bytes.Cut(b, []byte(") "))
			running = running || strings.ContainsRune("RS", rune(after[0]))
		}
		if !running {
			return nil
		}
	}
	return fmt.Errorf("freeze: process %d goes on running", pid)
}
