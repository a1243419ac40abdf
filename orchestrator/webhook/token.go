package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/genstream/genstream/events"
)

// Keys are the secrets that tokens are made with. Each is at least 16 bytes. The
// first signs; all are accepted, so that a new one can be put in front while
// providers still call with the old one.
type Keys [][]byte

// token is what a provider shows to prove that we gave it the address: Runware
// signs nothing, so this is the only proof there is. 128 bits.
func (k Keys) token(key []byte, provider string, id events.ID) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("webhook/" + provider + "/" + string(id)))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// URL is the address that a provider is told for a generation, under a base such
// as https://hooks.example.com.
func (k Keys) URL(base, provider string, id events.ID) string {
	return strings.TrimRight(base, "/") + "/hooks/" + url.PathEscape(provider) + "/" + string(id) + "/" + k.token(k[0], provider, id)
}

// valid compares in constant time, with every key.
func (k Keys) valid(provider string, id events.ID, token string) bool {
	ok := false
	for _, key := range k {
		ok = hmac.Equal([]byte(k.token(key, provider, id)), []byte(token)) || ok
	}
	return ok
}
