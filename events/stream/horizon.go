package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events/fault"
)

// Horizon is the sequence after which a follower of open generations has to
// start: 0, the whole log, if none was noted.
func (l *Log) Horizon(ctx context.Context) (uint64, error) {
	s, err := l.js.Stream(ctx, Horizon)
	if err != nil {
		return 0, fmt.Errorf("read horizon: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, horizonSubject+"orchestrator")
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read horizon: %w", err)
	}
	sequence, err := strconv.ParseUint(string(m.Data), 10, 64)
	if err != nil || sequence > l.Durable() {
		return 0, nil // of another life of the stream: read everything
	}
	return sequence, nil
}

// SetHorizon notes that every commit up to the sequence belongs to a completed
// generation. Losing the note costs reading time and nothing else.
func (l *Log) SetHorizon(ctx context.Context, sequence uint64) error {
	err := fault.Around("horizon", func() error {
		_, err := l.js.Publish(ctx, horizonSubject+"orchestrator", strconv.AppendUint(nil, sequence, 10))
		return err
	})
	if err != nil {
		return fmt.Errorf("note horizon: %w", err)
	}
	return nil
}
