package blob

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// A bucket that takes its time is not the provider's slowness.
func TestTimeBetweenReadsIsOurOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := false
		b := &body{r: bytes.NewReader(make([]byte, 1000)), want: -1, pace: newPace(defaultMinRate, func() { over = true })}
		for {
			_, err := b.Read(make([]byte, 10))
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute) // of fake time: the bucket writes
		}
		if over || b.n != 1000 {
			t.Errorf("over = %v after %d bytes", over, b.n)
		}
	})
}
