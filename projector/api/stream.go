package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/genstream/genstream/events/stream"
)

const (
	// heartbeat is how often an idle stream says that it lives: proxies close
	// connections that are silent for longer.
	heartbeat = 15 * time.Second

	// maxStreams bounds the streams and waits at a time: each holds a consumer.
	maxStreams = 512
)

// enter takes a place for a stream or a wait, if one is free; leave gives it back.
func (a *api) enter() bool {
	select {
	case a.streams <- struct{}{}:
		return true
	default:
		return false
	}
}

func (a *api) leave() { <-a.streams }

// untilStopping is ctx, cut off when the server begins to stop.
func (a *api) untilStopping(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if a.cfg.Stopping == nil {
		return ctx, cancel
	}
	stop := context.AfterFunc(a.cfg.Stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

// stream answers with the commits that follow brings, as server-sent events. It
// ends with the client, with the server, with the log, or after a completing
// commit if ends says so.
func (a *api) stream(follow func(context.Context, func([]stream.Entry) error) error, ends bool) (*reply, error) {
	if !a.enter() {
		return nil, busy.because("too many streams are open")
	}
	return &reply{Body: func(hc huma.Context) {
		defer a.leave()
		r, w := humago.Unwrap(hc)
		set(w.Header(), []string{
			"Content-Type", "text/event-stream", "Cache-Control", "no-store", "Vary", "Accept",
			"X-Accel-Buffering", "no", // nginx would hold events back
		})
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return
		}
		ctx, cancel := a.untilStopping(r.Context())
		defer cancel()
		lasting(ctx, 0)
		parts := make(chan []byte)
		ended := make(chan error, 1)
		go func() {
			defer close(parts)
			ended <- follow(ctx, func(batch []stream.Entry) error { return send(ctx, parts, batch, ends) })
		}()
		a.write(ctx, w, parts)
		cancel() // the client may be what ended
		for range parts {
		}
		if err := <-ended; err != nil && !errors.Is(err, errCompleted) {
			a.log.Warn("stream of events broken off", "error", err)
		}
	}}, nil
}

// errCompleted ends a stream after its generation's last commit.
var errCompleted = errors.New("completed")

// send renders a batch and hands it to the writer.
func send(ctx context.Context, parts chan<- []byte, batch []stream.Entry, ends bool) error {
	var b bytes.Buffer
	done := false
	for _, e := range batch {
		if err := appendEvents(&b, e); err != nil {
			return err
		}
		if done = ends && e.Completes(); done {
			break
		}
	}
	select {
	case parts <- b.Bytes():
	case <-ctx.Done():
	}
	if done {
		return errCompleted
	}
	return nil
}

// appendEvents renders a commit. Only its last event carries the ID: a client
// that was cut off in between asks for the whole commit again.
func appendEvents(b *bytes.Buffer, e stream.Entry) error {
	all, err := flatten(e)
	if err != nil {
		return err
	}
	for i, one := range all {
		if i == len(all)-1 {
			fmt.Fprintf(b, "id: %d\n", e.Sequence)
		}
		fmt.Fprintf(b, "event: %s\ndata: %s\n\n", one.kind, one.data)
	}
	return nil
}

// write passes parts on until they end, the client does, or ctx.
func (a *api) write(ctx context.Context, w http.ResponseWriter, parts <-chan []byte) {
	control := http.NewResponseController(w)
	put := func(part []byte) bool {
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not supported: the connection has none
		_, err := w.Write(part)
		return err == nil && control.Flush() == nil
	}
	// The head, and a sign for the client that it is heard, before anything happens.
	if !put([]byte("retry: 1000\n: hello\n\n")) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case part, more := <-parts:
			if !more || !put(part) {
				return
			}
		case <-beat.C:
			if !put([]byte(": still here\n\n")) {
				return
			}
		}
	}
}
