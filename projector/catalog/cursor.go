package catalog

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/genstream/genstream/events"
)

// ErrCursor is a cursor that no list with this filter has given out. HTTP answers 422.
var ErrCursor = errors.New("malformed cursor, or one of another list")

// A cursor is base64url, unpadded, of: version byte, hash of the list and its
// filter (8), created_at of the last row (8, big endian), ID of the last row. It
// holds no secret and grants nothing, so it is not signed: a forged one can only
// name another place in the same list.
const (
	cursorVersion = 1
	cursorFixed   = 1 + 8 + 8
)

// place is a row's place in the order of a list.
type place struct {
	created int64 // microseconds UTC
	id      string
}

func (p place) cursor(hash [8]byte) string {
	b := make([]byte, 0, cursorFixed+len(p.id))
	b = append(b, cursorVersion)
	b = append(b, hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.created))
	b = append(b, p.id...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor takes only what cursor made: one spelling, this version, this
// list and filter, and an ID that check accepts.
func parseCursor(s string, hash [8]byte, check func(id string) error) (place, error) {
	if len(s) > 128 {
		return place{}, fmt.Errorf("%w: %d characters", ErrCursor, len(s))
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < cursorFixed {
		return place{}, ErrCursor
	}
	p := place{created: int64(binary.BigEndian.Uint64(b[9:])), id: string(b[cursorFixed:])}
	if check(p.id) != nil || p.cursor(hash) != s { // the latter covers version, hash and spelling
		return place{}, ErrCursor
	}
	return p, nil
}

// filterHash stands for a list and its filter, so that a cursor is not carried
// over to another one, where it would silently skip rows.
func filterHash(selected string) [8]byte {
	sum := sha256.Sum256([]byte(selected))
	return [8]byte(sum[:8])
}

func checkGenerationID(s string) error {
	_, err := events.ParseID(s)
	return err
}

func checkArtifactID(s string) error {
	_, _, err := events.ParseArtifactID(s)
	return err
}
