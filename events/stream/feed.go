package stream

import (
	"context"
	"fmt"
)

// Feed is Consume for the only consumer there is: every commit whose sequence is
// above after, in order, with nothing to acknowledge and no position to keep. It
// does not wait for the disk: what is decided on a commit may be done before the
// commit is durable only as long as nothing leaves the process, and everything
// that does passes Await.
func (l *Log) Feed(ctx context.Context, after uint64, handle func(Entry)) error {
	each := func(batch []Entry) error {
		for _, e := range batch {
			handle(e)
		}
		return nil
	}
	var err error
	if l.tail != nil {
		err = l.followTail(ctx, after, false, each)
	} else {
		err = l.read(ctx, after, pattern, false, each, nil)
	}
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	return nil
}
