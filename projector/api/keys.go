package api

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrKeys is wrapped by every error of ParseKeys.
var ErrKeys = errors.New("malformed key file")

// MinKey is the least length of an API key, in bytes. Keys are meant to be
// random (`openssl rand -hex 24`), so a plain hash is enough to keep them.
const MinKey = 16

const maxKeyName = 64 // bytes of a key's name

// Keys is who may use the API. Only hashes are kept.
type Keys struct {
	keys []key
}

type key struct {
	name string
	hash [sha256.Size]byte // of the key
	page [sha256.Size]byte // what the page's cookie holds instead of the key
}

// ParseKeys reads a key file: one "name key" a line, white space between them;
// empty lines and lines that start with # are passed over. A name is up to 64
// bytes of letters, digits and "_.-", and stands for the requester (an
// Idempotency-Key is his own); a key has at least MinKey bytes. Several keys may
// bear one name, for rotation. Errors wrap ErrKeys and name the line, never its text.
func ParseKeys(r io.Reader) (*Keys, error) {
	k := &Keys{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Fields(line)
		switch {
		case len(parts) != 2:
			return nil, fmt.Errorf("%w: line %d: want a name and a key", ErrKeys, n)
		case !plainName(parts[0]):
			return nil, fmt.Errorf("%w: line %d: a name has 1 to %d letters, digits and _.-", ErrKeys, n, maxKeyName)
		case len(parts[1]) < MinKey:
			return nil, fmt.Errorf("%w: line %d: a key has at least %d bytes", ErrKeys, n, MinKey)
		}
		added := newKey(parts[0], parts[1])
		for _, other := range k.keys {
			if other.hash == added.hash {
				return nil, fmt.Errorf("%w: line %d: the key is in use already", ErrKeys, n)
			}
		}
		k.keys = append(k.keys, added)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf("%w: no key in it", ErrKeys)
	}
	return k, nil
}

func newKey(name, secret string) key {
	k := key{name: name, hash: sha256.Sum256([]byte(secret))}
	m := hmac.New(sha256.New, k.hash[:])
	m.Write([]byte("genstream page"))
	m.Sum(k.page[:0])
	return k
}

// plainName keeps names fit for a NATS header.
func plainName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	return len(s) >= 1 && len(s) <= maxKeyName && strings.Trim(s, letters) == ""
}

// find is the key that secret is. Every key is compared, in constant time each.
func (k *Keys) find(secret string) (found key, ok bool) {
	hash := sha256.Sum256([]byte(secret))
	for _, c := range k.keys {
		if subtle.ConstantTimeCompare(hash[:], c.hash[:]) == 1 {
			found, ok = c, true
		}
	}
	return found, ok
}

// findPage is the key that a cookie of the page was made for.
func (k *Keys) findPage(cookie string) (found key, ok bool) {
	held, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil {
		return key{}, false
	}
	for _, c := range k.keys {
		if subtle.ConstantTimeCompare(held, c.page[:]) == 1 {
			found, ok = c, true
		}
	}
	return found, ok
}

func (k key) cookie() string { return base64.RawURLEncoding.EncodeToString(k.page[:]) }
