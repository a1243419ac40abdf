package natsd_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/genstream/genstream/events/natsd"
)

const lockDir = "NATSD_TEST_LOCK" // in the environment: be the process that holds the lock

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockDir); dir != "" {
		if _, err := natsd.Lock(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed, or its parent ends
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSecondLockIsRefusedWithThePID(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	unlock, err := natsd.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a refusal must not harm the lock, nor what is written in it
		_, err = natsd.Lock(dir)
		if !errors.Is(err, natsd.ErrLocked) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())+":") || !strings.Contains(err.Error(), dir) {
			t.Fatalf("second lock: %v", err)
		}
	}
	if other, err := natsd.Lock(t.TempDir()); err != nil {
		t.Errorf("another directory: %v", err)
	} else {
		other()
	}
	unlock()
	unlock, err = natsd.Lock(dir)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	unlock()
}

func TestLockOfADeadProcessIsFree(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockDir+"="+dir)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	_, err = natsd.Lock(dir)
	if !errors.Is(err, natsd.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d:", cmd.Process.Pid)) {
		t.Errorf("while it runs: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed: the kernel drops its lock
	unlock, err := natsd.Lock(dir)
	if err != nil {
		t.Fatalf("after it was killed: %v", err)
	}
	unlock()
}

func TestLockNeedsADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := natsd.Lock(file); err == nil || errors.Is(err, natsd.ErrLocked) {
		t.Errorf("lock of a file: %v", err)
	}
}
