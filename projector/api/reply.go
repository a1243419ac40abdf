package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/genstream/genstream/events"
)

// buffers holds bodies on their way out, so that a list costs no garbage.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// jsonReply answers with a body that write writes. Headers come in pairs.
func jsonReply(code int, write func(*bytes.Buffer) error, headers ...string) (*reply, error) {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	if err := write(b); err != nil {
		buffers.Put(b)
		return nil, err
	}
	return &reply{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		set(w.Header(), headers)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
		w.WriteHeader(code)
		_, _ = w.Write(b.Bytes()) // the client is gone: nobody to tell
		if b.Cap() <= 1<<20 {
			buffers.Put(b)
		}
	}}, nil
}

// emptyReply answers without a body.
func emptyReply(code int, headers ...string) (*reply, error) {
	return &reply{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		set(w.Header(), headers)
		w.WriteHeader(code)
	}}, nil
}

func set(h http.Header, pairs []string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			h.Set(pairs[i], pairs[i+1])
		}
	}
}

// encode writes v as JSON without the escaping that only HTML needs: an input
// leaves as it came.
func encode(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return nil
}

// appendString writes s as a JSON string.
func appendString(b *bytes.Buffer, s string) {
	if plainText(s) {
		b.WriteByte('"')
		b.WriteString(s)
		b.WriteByte('"')
		return
	}
	if err := encode(b, s); err != nil {
		panic(err) // a string
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
}

// plainText says whether s stands for itself in JSON, as nearly everything in a row does.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// matches says whether an If-None-Match names the tag, compared weakly (RFC 9110, 13.1.2).
func matches(header, tag string) bool {
	tag = strings.TrimPrefix(tag, "W/")
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}

func cutName(s string) string { return events.Cut(s, 64) }
