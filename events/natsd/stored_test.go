package natsd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// large is a log of four block files, three of which the server has finished.
func large(t *testing.T) (dir string, s *natsd.Server, l *stream.Log, end uint64) {
	t.Helper()
	dir = t.TempDir()
	s = start(t, natsd.Config{Dir: dir, Gate: true})
	l = openLog(t, s, true)
	for n := range 140 {
		id := events.ID(uuid.Must(uuid.NewV7()).String())
		r := streamtest.Request(id, 1)
		r.Input = json.RawMessage(fmt.Sprintf(`{"positivePrompt":%q}`, strings.Repeat("x", 150_000+10_000*(n%7))))
		c, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), r)
		if err != nil {
			t.Fatal(err)
		}
		end = c.Sequence
	}
	return dir, s, l, end
}

func blockFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", stream.Name, "msgs", "*.blk"))
	if err != nil || len(files) != 4 {
		t.Fatalf("block files %v, %v: want four", files, err)
	}
	return files
}

// TestStoredIsWhatTheServerAnswers holds the files' format against the server, by
// its own answers: a version that writes another one fails here.
func TestStoredIsWhatTheServerAnswers(t *testing.T) {
	dir, s, l, end := large(t)
	blockFiles(t, dir)
	var found sync.Map
	var readers sync.WaitGroup
	for reader := range 4 {
		readers.Go(func() {
			for i := range end {
				seq := (i+uint64(reader)*end/4)%end + 1
				got, ok := s.Stored(seq)
				if !ok {
					continue
				}
				found.Store(seq, true)
				want, err := l.At(t.Context(), seq)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("message at %d: %v, read %d bytes at %s, the server has %d at %s", seq, err, len(got.Body), got.Stored, len(want.Body), want.Stored)
				}
			}
		})
	}
	readers.Wait()
	n := uint64(0)
	for seq := uint64(1); seq <= end; seq++ {
		if _, ok := found.Load(seq); ok {
			if n++; n != seq {
				t.Fatalf("message %d is found, and one before it is not", seq)
			}
		}
	}
	if n < end*2/3 || n == end {
		t.Errorf("%d of %d messages found, want those of three blocks of four", n, end)
	}
	for _, seq := range []uint64{0, end + 1, 1 << 63} {
		if _, ok := s.Stored(seq); ok {
			t.Errorf("there is a message at %d", seq)
		}
	}
}

func TestBlocksThatComeLaterAreFound(t *testing.T) {
	_, s, l, end := large(t)
	if _, ok := s.Stored(end); ok {
		t.Fatal("the block that is being written was read")
	}
	for range 80 {
		id := events.ID(uuid.Must(uuid.NewV7()).String())
		r := streamtest.Request(id, 1)
		r.Input = json.RawMessage(fmt.Sprintf(`{"positivePrompt":%q}`, strings.Repeat("y", 200_000)))
		if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := s.Stored(end); !ok {
		t.Error("the block is finished, and is not read")
	}
}

// TestDamageIsAskedOfTheServer: a message of which anything is wrong is not returned.
func TestDamageIsAskedOfTheServer(t *testing.T) {
	dir, s, _, _ := large(t)
	s.Close()
	file := blockFiles(t, dir)[0]
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0) // of the first block
	for stored := natsd.StoredIn(dir); ; last++ {
		e, ok := stored(last + 1)
		if !ok {
			t.Fatal("the end of the first block is not found")
		}
		if len(e.Body) == 0 {
			t.Fatal("a message without a body")
		}
		if !bytes.Contains(whole, []byte(e.Subject)) {
			break
		}
	}
	for name, c := range map[string]struct {
		damage func([]byte) []byte
		read   uint64
	}{
		"a bit of the body":     {func(b []byte) []byte { b[1000] ^= 4; return b }, 1},
		"a bit of the subject":  {func(b []byte) []byte { b[30] ^= 1; return b }, 1},
		"a bit of the sequence": {func(b []byte) []byte { b[4] ^= 1; return b }, 1},
		"a bit of the length":   {func(b []byte) []byte { b[0] ^= 1; return b }, 1},
		"a bit of the time":     {func(b []byte) []byte { b[12] ^= 1; return b }, 1},
		"a bit of the sum":      {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, last},
		"the end is missing":    {func(b []byte) []byte { return b[:len(b)-1] }, last},
		"nothing is there":      {func([]byte) []byte { return nil }, 1},
		"zeros":                 {func(b []byte) []byte { return make([]byte, len(b)) }, 1},
	} {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, looked at before: %t", name, before), func(t *testing.T) {
				stored := natsd.StoredIn(dir)
				if before {
					if _, ok := stored(c.read); !ok {
						t.Fatal("not found when it was whole")
					}
				}
				if err := os.WriteFile(file, c.damage(bytes.Clone(whole)), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, ok := stored(c.read); ok {
					t.Error("a damaged message was returned")
				}
				if err := os.WriteFile(file, whole, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, ok := stored(c.read); !ok {
					t.Error("the file is whole again, and is not read")
				}
			})
		}
	}
}
