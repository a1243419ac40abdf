package events

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrID is wrapped by every error of ParseID and ParseArtifactID.
var ErrID = errors.New("malformed ID")

// ID names one generation: a UUID of version 7 (minted, or a client's own) or
// of version 8 (derived from an Idempotency-Key, or from the generation that it
// rescues), in the canonical form of RFC 9562: 36 bytes, lower case. Nothing else ever becomes part of a subject,
// a blob key or a URL, because every edge gets its ID from ParseID.
type ID string

// ParseID checks s and returns it as an ID. It accepts the canonical form only:
// NATS would store `*`, `>` and dots in a literal subject, and a second spelling
// of one ID would be a second generation. The error wraps ErrID.
func ParseID(s string) (ID, error) {
	if !canonical(s) {
		return "", fmt.Errorf("%w: want 36 lower-case characters of a UUID", ErrID)
	}
	if v := s[14]; v != '7' && v != '8' {
		return "", fmt.Errorf("%w: want a UUID of version 7 (or 8, derived from an Idempotency-Key)", ErrID)
	}
	if !strings.ContainsRune("89ab", rune(s[19])) {
		return "", fmt.Errorf("%w: not the variant of RFC 9562", ErrID)
	}
	return ID(s), nil
}

func canonical(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

// UnmarshalText is ParseID for encoding/json: a decoded ID is a checked ID.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// Time is the moment that a UUIDv7 carries (millisecond precision), and the
// zero time for a derived ID, which carries none.
func (id ID) Time() time.Time {
	if len(id) != 36 || id[14] != '7' {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(string(id[:8]+id[9:13]), 16, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// TaskID derives the provider's task ID for one try of one slot. It has the
// shape of a UUIDv4, which is what Runware asks for, and depends on nothing but
// its arguments, so that a process that lost its memory asks about, and repeats,
// the very same task instead of inventing (and buying) a new one.
func TaskID(id ID, slot, try int) string {
	sum := sha256.Sum256([]byte("task/" + string(id) + "/" + strconv.Itoa(slot) + "/" + strconv.Itoa(try)))
	return uuid(sum[:16], 4)
}

// DerivedID is the UUIDv8 of a requester's Idempotency-Key.
func DerivedID(requester, key string) ID {
	sum := sha256.Sum256([]byte("key/" + strconv.Itoa(len(requester)) + "/" + requester + "/" + key))
	return ID(uuid(sum[:16], 8))
}

// RescueID is the UUIDv8 of the one generation that rescues id: whoever asks for
// it, and however often, asks for the same.
func RescueID(id ID) ID {
	sum := sha256.Sum256([]byte("rescue/" + string(id)))
	return ID(uuid(sum[:16], 8))
}

// SubmittedID is the UUIDv7 of a submission that brought no ID of its own:
// its time is the time at which the queue stored it, the rest comes from the
// queue's identity and the sequence there, so that a redelivery finds the same
// generation.
func SubmittedID(queue string, sequence uint64, stored time.Time) ID {
	sum := sha256.Sum256([]byte("submit/" + queue + "/" + strconv.FormatUint(sequence, 10)))
	ms := uint64(stored.UnixMilli())
	for i := range 6 {
		sum[i] = byte(ms >> (8 * (5 - i)))
	}
	return ID(uuid(sum[:16], 7))
}

// uuid formats b (16 bytes, changed in place) with RFC 9562's version and variant.
func uuid(b []byte, version byte) string {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ArtifactID names the artifact of one slot: the generation's ID, a dash and
// the slot. It sorts with the generation and needs no random part, since a slot
// ends at most once.
func ArtifactID(id ID, slot int) string { return string(id) + "-" + strconv.Itoa(slot) }

// ParseArtifactID takes an artifact's ID apart. The error wraps ErrID.
func ParseArtifactID(s string) (ID, int, error) {
	if len(s) < 38 || len(s) > 39 || s[36] != '-' {
		return "", 0, fmt.Errorf("%w: want <generation ID>-<slot>", ErrID)
	}
	id, err := ParseID(s[:36])
	if err != nil {
		return "", 0, err
	}
	slot, err := strconv.Atoi(s[37:])
	if err != nil || slot < 0 || slot >= MaxCount || ArtifactID(id, slot) != s {
		return "", 0, fmt.Errorf("%w: no such slot", ErrID)
	}
	return id, slot, nil
}
