package blob

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/genstream/genstream/events"
)

// ErrKey is wrapped by every error about a key that this package has not made.
var ErrKey = errors.New("malformed blob key")

// Kind is what a key names.
type Kind int

// The kinds. The zero Kind is none of them.
const (
	OutputFile  Kind = iota + 1 // the file of one output
	RawDelivery                 // a delivery as it came, too long for the log
	Leftover                    // what an interrupted write left in a directory; never read, only removed
	InputFile                   // a file that was uploaded for inputs, named by its content
)

const (
	folder    = "generations"
	inputs    = "inputs" // events.InputKey has the other half of these names
	rawPrefix = "delivery-"
	rawExt    = "json"
	tempExt   = ".tmp" // of <key>.<hex>.tmp, which is renamed when it is whole
)

// Key names the file of one output. The random part is 32 lower-case hex
// characters, ext two to four of [a-z0-9], slot below events.MaxCount; anything
// else is a programmer's error and panics.
func Key(id events.ID, slot int, random, ext string) string {
	return checked(OutputFile, folder+"/"+string(id)+"/"+strconv.Itoa(slot)+"-"+random+"."+ext)
}

// RawKey names a raw delivery. It panics as Key does.
func RawKey(id events.ID, random string) string {
	return checked(RawDelivery, folder+"/"+string(id)+"/"+rawPrefix+random+"."+rawExt)
}

// checked keeps the two directions of the naming together: nothing is written
// that could not be found again.
func checked(want Kind, key string) string {
	if _, _, kind, err := ParseKey(key); err != nil || kind != want {
		panic("blob: not the parts of a key: " + strconv.Quote(key))
	}
	return key
}

// ParseKey takes a key apart. It accepts exactly what Key, RawKey and
// events.InputKey make, and what an interrupted write of those may have left;
// every character of the key is checked, so that what it accepts is safe as a path.
// The slot is -1 where there is none, and the ID of an input's file, which is no
// single generation's, is empty. The error wraps ErrKey.
func ParseKey(key string) (id events.ID, slot int, kind Kind, err error) {
	if id, slot, kind, ok := parse(key); ok {
		return id, slot, kind, nil
	}
	if whole, ok := cutTemp(key); ok {
		if id, slot, _, ok := parse(whole); ok {
			return id, slot, Leftover, nil
		}
	}
	return "", -1, 0, fmt.Errorf("%w: %q", ErrKey, events.Cut(key, 128))
}

func parse(key string) (id events.ID, slot int, kind Kind, ok bool) {
	if _, ok := events.ParseInputKey(key); ok {
		return "", -1, InputFile, true
	}
	top, rest, _ := strings.Cut(key, "/")
	owner, name, _ := strings.Cut(rest, "/")
	id, err := events.ParseID(owner)
	if top != folder || err != nil {
		return "", -1, 0, false
	}
	base, ext, _ := strings.Cut(name, ".")
	if random, found := strings.CutPrefix(base, rawPrefix); found {
		return id, -1, RawDelivery, ext == rawExt && isHex(random, 32, 32)
	}
	number, random, _ := strings.Cut(base, "-")
	slot, err = strconv.Atoi(number)
	if err != nil || slot < 0 || slot >= events.MaxCount || strconv.Itoa(slot) != number {
		return "", -1, 0, false
	}
	return id, slot, OutputFile, isHex(random, 32, 32) && isExt(ext)
}

// cutTemp takes the ending off the name of a temporary file.
func cutTemp(key string) (whole string, ok bool) {
	key, ok = strings.CutSuffix(key, tempExt)
	dot := strings.LastIndexByte(key, '.')
	if !ok || dot < 0 || !isHex(key[dot+1:], 1, 16) {
		return "", false
	}
	return key[:dot], true
}

func isHex(s string, shortest, longest int) bool {
	return len(s) >= shortest && len(s) <= longest && strings.Trim(s, "0123456789abcdef") == ""
}

func isExt(s string) bool {
	return len(s) >= 2 && len(s) <= 4 && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// random is 128 bits of a key that nobody else has.
func random() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: the program ends if the system has no randomness
	return hex.EncodeToString(b[:])
}
