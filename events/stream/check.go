package stream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
)

// Check asks for a look at an open generation, by one of all orchestrators. Those
// that ask for the same due time ask once. A second look is harmless.
func (l *Log) Check(ctx context.Context, id events.ID, due time.Time) error {
	m := nats.NewMsg(checkSubject + string(id))
	_, err := l.js.PublishMsg(ctx, m, jetstream.WithMsgID(string(id)+"."+strconv.FormatInt(due.UnixMicro(), 10)))
	if err != nil {
		return fmt.Errorf("ask for a look at generation=%s: %w", id, err)
	}
	return nil
}

// Checks calls handle for each look that was asked for, shared among all
// processes, until ctx ends. A look that is lost with its process is asked for
// again by the others, so it counts as done once it was handed out.
func (l *Log) Checks(ctx context.Context, handle func(events.ID)) error {
	return l.consume(ctx, Checks, checkSubject+">", "orchestrator", func(w Work) {
		defer w.Ack()
		if id, err := events.ParseID(strings.TrimPrefix(w.Subject, checkSubject)); err == nil {
			handle(id)
		}
	})
}
