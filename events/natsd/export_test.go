package natsd

import "github.com/genstream/genstream/events/stream"

// StoredIn is Server.Stored of a server whose files are there, and which knows
// nothing of them yet.
func StoredIn(dir string) func(sequence uint64) (stream.Entry, bool) {
	return (&stored{blocks: logBlocks(dir)}).entry
}
