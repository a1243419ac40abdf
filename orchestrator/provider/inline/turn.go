package inline

import (
	"context"
	"fmt"
)

// largeBody is the length up to which a body waits for nobody, in bytes.
const largeBody = 64 << 10

// Turns bound how many large bodies are read and held at a time, whoever reads
// them. A body shows that it is large by going on: nothing depends on what its
// sender says of its length.
type Turns struct{ places chan struct{} }

// NewTurns has places for n, 1 or more.
func NewTurns(n int) *Turns { return &Turns{places: make(chan struct{}, n)} }

// Turn is for one reader, who may read several bodies in it, one after another.
// Waiting for a place ends with ctx.
func (t *Turns) Turn(ctx context.Context) *Turn { return &Turn{ctx: ctx, places: t.places} }

// Turn is one reader's place. The first large body takes it; Reply.Close gives
// it back, and so does a Read that fails.
type Turn struct {
	ctx    context.Context
	places chan struct{}
	held   bool
}

// take waits for a place. A nil Turn needs none.
func (t *Turn) take() error {
	if t == nil || t.held {
		return nil
	}
	select {
	case t.places <- struct{}{}:
		t.held = true
		return nil
	case <-t.ctx.Done():
		return fmt.Errorf("wait for the turn of a large body: %w", context.Cause(t.ctx))
	}
}

func (t *Turn) end() {
	if t != nil && t.held {
		t.held = false
		<-t.places
	}
}
