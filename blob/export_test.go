package blob

import (
	"context"
	"io"
	"strings"

	"github.com/genstream/genstream/events"
)

// For tests that need names and ports of their own.
var NewFetcherWith = newFetcher

// WriteInput writes a file for inputs of which nobody has looked at the content yet.
func WriteInput(ctx context.Context, b *Bucket, r io.Reader) error {
	return b.put(ctx, events.InputKey(strings.Repeat("a", 64)), "image/png", r)
}
