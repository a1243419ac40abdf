package orchestrator

import (
	"context"
	"time"
)

// keepHorizon notes now and then where the next life may start to read: at once, so
// that what this life has read is not read again if it is killed soon.
func (o *Orchestrator) keepHorizon(ctx context.Context) error {
	ticker := time.NewTicker(30 * time.Second)
	defer ticker.Stop()
	for {
		o.noteHorizon(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// noteHorizon notes the horizon if it has moved since this life noted it last.
func (o *Orchestrator) noteHorizon(ctx context.Context) {
	// The position first: what the table holds by then covers everything up to it.
	at := min(o.position.Load(), o.ledger.Durable())
	if oldest := o.table.oldest(); oldest != 0 && oldest <= at {
		at = oldest - 1
	}
	if at <= o.noted {
		return
	}
	if err := o.ledger.SetHorizon(ctx, at); err != nil {
		o.log.Warn("horizon not noted", "error", err)
		return
	}
	o.noted = at
}
