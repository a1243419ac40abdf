package fault

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func arm(t *testing.T, spec string) *strings.Builder {
	t.Helper()
	var told strings.Builder
	if err := Arm(spec, &told); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { armed.Store(nil) })
	return &told
}

func TestFaultFiresOnceAtItsHit(t *testing.T) {
	told := arm(t, "append.after:error:3")
	steps := 0
	for n := 1; n <= 5; n++ {
		err := Around("append", func() error { steps++; return nil })
		if got, want := errors.Is(err, Err), n == 3; got != want {
			t.Errorf("hit %d: %v", n, err)
		}
		if err := Hit("append.before"); err != nil {
			t.Errorf("another point: %v", err)
		}
	}
	if steps != 5 || told.String() != "fault: append.after: error\n" {
		t.Errorf("%d steps, told %q", steps, told)
	}
}

func TestStepThatFailsHasNoAfter(t *testing.T) {
	told := arm(t, "append.after:error:1")
	own := errors.New("its own")
	if err := Around("append", func() error { return own }); err != own || told.Len() > 0 {
		t.Errorf("%v, told %q", err, told)
	}
}

func TestStepAfterAFaultIsNotTaken(t *testing.T) {
	arm(t, "append.before:error:1")
	if err := Around("append", func() error { t.Error("taken"); return nil }); !errors.Is(err, Err) {
		t.Error(err)
	}
}

func TestPanicAndStall(t *testing.T) {
	arm(t, "append.before:panic:1")
	func() {
		defer func() {
			if r := recover(); r != "fault: append.before" {
				t.Errorf("recovered %v", r)
			}
		}()
		_ = Hit("append.before")
	}()
	arm(t, "append.before:stall:1")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := Hit("append.before"); err != nil || time.Since(start) != StallTime {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestWhatIsNoFaultIsRefused(t *testing.T) {
	for _, spec := range []string{"append.before", "append.before:kill", "append.before:kill:0", "append.before:kill:x", "nowhere:kill:1", "append.before:sing:1", "recover.before:error:1", "a:b:c:d"} {
		if err := Arm(spec, nil); err == nil || armed.Load() != nil {
			t.Errorf("%q: %v", spec, err)
		}
	}
	if err := Arm("", nil); err != nil || armed.Load() != nil {
		t.Errorf("none: %v", err)
	}
}

func BenchmarkOff(b *testing.B) {
	b.Run("Hit", func(b *testing.B) {
		for b.Loop() {
			if err := Hit("append.before"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Around", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if err := Around("append", func() error { n++; return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
