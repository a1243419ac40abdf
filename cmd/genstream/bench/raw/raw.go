// Package raw measures what the product rests on, alone: JetStream appends and
// SQLite inserts, with nothing around them.
//
// # Usage
//
//	perSecond, err := raw.Appends(ctx, dir, 64, true, 2*time.Second)
//	perSecond, err = raw.Inserts(ctx, dir, 1, 2*time.Second)
package raw

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/cmd/genstream/bench/floor"
)

// commit is about what one of genstream's commits weighs, in bytes.
const commit = 500

// Appends is how many appends a second an embedded JetStream acknowledges to so
// many writers, each to a new subject and with the expected sequence of it, over an
// in-process connection. sync: each is on disk before it is acknowledged
// (sync_interval always). dir must not be there yet, and is left behind.
func Appends(ctx context.Context, dir string, writers int, sync bool, long time.Duration) (perSecond float64, err error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "raw", DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: sync,
		NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return 0, fmt.Errorf("measure appends: %w", err)
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(time.Minute) {
		return 0, errors.New("measure appends: the server is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return 0, fmt.Errorf("measure appends: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, fmt.Errorf("measure appends: %w", err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.>"}, Storage: jetstream.FileStorage}); err != nil {
		return 0, fmt.Errorf("measure appends: %w", err)
	}
	return rate(writers, long, func(n int64) error {
		m := nats.NewMsg(fmt.Sprintf("raw.%036d", n))
		m.Data = make([]byte, commit)
		_, err := js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(0))
		return err
	})
}

// rate calls f from so many goroutines, each time with another number.
func rate(writers int, long time.Duration, f func(n int64) error) (perSecond float64, err error) {
	var next, done atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, writers)
	start := time.Now()
	for i := range errs {
		all.Go(func() {
			for time.Since(start) < long {
				if errs[i] = f(next.Add(1)); errs[i] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

// batch is how many generations are inserted in one transaction.
const batch = 64

// Inserts is how many generations of so many outputs SQLite takes in a second, 64
// per transaction, into the tables of the floor. dir must be there; a file is left in it.
func Inserts(ctx context.Context, dir string, outputs int, long time.Duration) (perSecond float64, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return 0, fmt.Errorf("measure inserts: %w", err)
	}
	c, err := floor.OpenCatalog(filepath.Join(dir, "raw.db"))
	if err != nil {
		return 0, fmt.Errorf("measure inserts: %w", err)
	}
	defer c.Close()
	n, err := rate(1, long, func(round int64) error {
		rows := make([]floor.Row, batch)
		for i := range rows {
			now := time.Now()
			rows[i] = floor.Row{
				ID: fmt.Sprintf("%036d", round*batch+int64(i)), Model: "runware:101@1", Created: now, Completed: now,
				Input: []byte(`{"positivePrompt":"a red fox in neon rain, 35mm","width":1024,"height":1024}`),
			}
			for slot := range outputs {
				rows[i].Outputs = append(rows[i].Outputs, floor.Output{Key: fmt.Sprintf("%036d-%d.png", round*batch+int64(i), slot), Seed: "4242", Cost: 1300000, At: now})
			}
		}
		return c.Insert(ctx, rows)
	})
	return n * batch, err
}
