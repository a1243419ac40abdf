package inline

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// scanner copies JSON and looks at its strings. It follows the structure just so
// far that it can tell keys from values; whether the whole is JSON is checked
// once at the end.
type scanner struct {
	in     *bufio.Reader
	limits Limits
	body   []byte
	files  []*File
	held   int64 // bytes of files in memory

	open  []byte // the open brackets
	colon bool   // a colon came since the last bracket or comma: a value is next
	key   string // the key before that colon
}

func (s *scanner) run() error {
	for {
		w, err := s.window()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		quote := bytes.IndexByte(w, '"')
		if quote >= 0 {
			w = w[:quote]
		}
		s.structure(w)
		if err := s.emit(w); err != nil {
			return err
		}
		s.skip(len(w))
		if quote >= 0 {
			s.skip(1)
			if err := s.text(); err != nil {
				return err
			}
		}
	}
}

// window is what is buffered, at least one byte; the error is io.EOF at the end.
func (s *scanner) window() ([]byte, error) {
	if _, err := s.in.Peek(1); err != nil {
		return nil, err
	}
	return s.in.Peek(s.in.Buffered())
}

// skip passes over n bytes of the last window.
func (s *scanner) skip(n int) {
	if _, err := s.in.Discard(n); err != nil {
		panic("inline: a window shrank: " + err.Error())
	}
}

func (s *scanner) structure(w []byte) {
	for _, c := range w {
		switch c {
		case '{', '[':
			s.open, s.colon = append(s.open, c), false
		case '}', ']':
			s.open, s.colon = s.open[:max(0, len(s.open)-1)], false
		case ',':
			s.colon = false
		case ':':
			s.colon = true
		}
	}
}

func (s *scanner) emit(p []byte) error {
	if int64(len(s.body)+len(p)) > s.limits.Small {
		return fmt.Errorf("%w: over its limit without files", ErrTooLarge)
	}
	s.body = append(s.body, p...)
	return nil
}

// text takes one string, of which the opening quote is read already.
func (s *scanner) text() error {
	value := len(s.open) == 0 || s.open[len(s.open)-1] == '[' || s.colon
	named := s.colon && (strings.HasSuffix(s.key, "Base64Data") || strings.HasSuffix(s.key, "DataURI"))
	str := quoted{room: s.limits.Small - int64(len(s.body)) - 2}
	if value {
		str.file = newDecoder(s.limits.Dir, s.held)
	}
	if err := s.quoted(&str); err != nil {
		str.drop()
		return err
	}
	if value && (str.length > long || named && str.length > 0) && str.file.finish() {
		return s.take(str.file.file())
	}
	str.drop()
	if str.cut {
		return str.broken()
	}
	return s.keep(str.raw, value)
}

// take puts a mark in the place of a file.
func (s *scanner) take(f *File) error {
	s.files = append(s.files, f)
	s.held += int64(len(f.memory))
	if len(s.files) > MaxFiles {
		return fmt.Errorf("%w: more than %d files", ErrTooLarge, MaxFiles)
	}
	return s.emit([]byte(`"` + mark + strconv.Itoa(len(s.files)) + `"`))
}

// keep copies an ordinary string.
func (s *scanner) keep(raw []byte, value bool) error {
	plain := append(append(make([]byte, 0, len(raw)+3), '"'), raw...)
	plain = append(plain, '"')
	if !value {
		s.key = unquote(plain)
	} else if len(raw) > 0 && (raw[0] == '$' || raw[0] == '\\') && strings.HasPrefix(unquote(plain), mark) {
		plain = append([]byte(`"$`), plain[1:]...)
	}
	return s.emit(plain)
}

// quoted is the content of one string as it streams by: as written, while that
// may still be needed, and as a file, while it may still be one.
type quoted struct {
	raw    []byte
	room   int64 // bytes that raw may grow to
	cut    bool  // raw was given up: only a file has so much room
	length int64 // bytes of the text that it stands for
	file   *decoder
}

// add takes a piece as written and as the text that it means.
func (q *quoted) add(raw, text []byte) error {
	q.length += int64(len(text))
	if q.file != nil {
		q.file.write(text)
	}
	alive := q.file != nil && !q.file.bad
	switch {
	case alive && q.file.failed != nil:
		return q.file.failed
	case q.cut && !alive:
		return q.broken()
	case q.cut:
	case int64(len(q.raw)+len(raw)) <= q.room:
		q.raw = append(q.raw, raw...)
	case alive:
		q.raw, q.cut = nil, true
	default:
		return fmt.Errorf("%w: a string over the limit", ErrTooLarge)
	}
	return nil
}

// broken is the error for a string that was given room as a file and is none.
func (q *quoted) broken() error {
	if q.length > long {
		return fmt.Errorf("%w: broken base64", ErrMalformed)
	}
	return fmt.Errorf("%w: over its limit without files", ErrTooLarge)
}

func (q *quoted) drop() {
	if q.file != nil {
		q.file.drop()
	}
}

// quoted reads to the closing quote.
func (s *scanner) quoted(q *quoted) error {
	for {
		w, err := s.window()
		if err == io.EOF {
			return fmt.Errorf("%w: it ends inside a string", ErrMalformed)
		}
		if err != nil {
			return err
		}
		end := bytes.IndexByte(w, '"')
		if end >= 0 {
			w = w[:end]
		}
		escape := bytes.IndexByte(w, '\\')
		if escape >= 0 {
			w = w[:escape]
		}
		if len(w) > 0 {
			if err := q.add(w, w); err != nil {
				return err
			}
			s.skip(len(w))
		}
		switch {
		case escape >= 0:
			if err := s.escape(q); err != nil {
				return err
			}
		case end >= 0:
			s.skip(1)
			return nil
		}
	}
}

// escape reads one escape sequence. Which character stands for one beyond
// ASCII does not matter here: there is none in base64.
func (s *scanner) escape(q *quoted) error {
	raw, err := s.in.Peek(2)
	if err == nil && raw[1] == 'u' {
		raw, err = s.in.Peek(6)
	}
	if err == io.EOF {
		return fmt.Errorf("%w: it ends inside an escape", ErrMalformed)
	}
	if err != nil {
		return err
	}
	text, ok := meaning(raw)
	if !ok {
		return fmt.Errorf("%w: no such escape", ErrMalformed)
	}
	if err := q.add(raw, text); err != nil {
		return err
	}
	s.skip(len(raw))
	return nil
}

// meaning is the text of an escape sequence. Line breaks have none: they are
// passed over in base64, and their length does not matter elsewhere.
func meaning(raw []byte) ([]byte, bool) {
	switch c := raw[1]; c {
	case '"', '\\', '/':
		return raw[1:2], true
	case 'n', 'r':
		return nil, true
	case 'b', 'f', 't':
		return []byte{' '}, true
	case 'u':
		code, err := strconv.ParseUint(string(raw[2:]), 16, 16)
		switch {
		case err != nil:
			return nil, false
		case code == '\n' || code == '\r':
			return nil, true
		default:
			return []byte(string(rune(code))), true
		}
	}
	return nil, false
}

// unquote is the text of a JSON string; empty if it is none.
func unquote(plain []byte) string {
	var text string
	if json.Unmarshal(plain, &text) != nil {
		return ""
	}
	return text
}

// discard lets go of every file.
func (s *scanner) discard() {
	for _, f := range s.files {
		f.close() // best effort: there is an error to report already
	}
}
