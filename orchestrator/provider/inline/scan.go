package inline

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
)

// scanner copies JSON and looks at its strings. It follows the structure just so
// far that it can tell keys from values; whether the whole is JSON is checked
// once at the end.
type scanner struct {
	in     *bufio.Reader // of src
	src    source
	limits Limits
	body   []byte
	files  []*File
	held   int64  // bytes of files in memory
	raw    []byte // the string that is being read, as written, while it may be needed

	open  []byte // the open brackets
	colon bool   // a colon came since the last bracket or comma: a value is next
	named bool   // the key before that colon is one of a file
}

// scanners keeps the buffers of scanners that have ended.
var scanners = sync.Pool{New: func() any {
	s := &scanner{src: source{sum: sha256.New()}}
	s.in = bufio.NewReaderSize(&s.src, 32<<10)
	return s
}}

func newScanner(r io.Reader, l Limits) *scanner {
	s := scanners.Get().(*scanner)
	s.src.r, s.src.left, s.limits = r, l.Body, l
	s.src.free, s.src.turn = largeBody, l.Turn
	s.src.sum.Reset()
	s.in.Reset(&s.src)
	return s
}

// release gives the buffers back. Nothing of the scanner may be used any more.
func (s *scanner) release() {
	const most = 512 << 10 // bytes of a buffer that are kept, so that one large body does not stay for ever
	if cap(s.body) > most || cap(s.raw) > most || cap(s.open) > most {
		return
	}
	*s = scanner{in: s.in, src: source{sum: s.src.sum}, body: s.body[:0], raw: s.raw[:0], open: s.open[:0]}
	scanners.Put(s)
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
		return errSmall()
	}
	s.body = append(s.body, p...)
	return nil
}

// text takes one string, of which the opening quote is read already.
func (s *scanner) text() error {
	value := len(s.open) == 0 || s.open[len(s.open)-1] == '[' || s.colon
	str := quoted{
		raw: s.raw[:0], room: s.limits.Small - int64(len(s.body)) - 2,
		value: value, dir: s.limits.Dir, held: s.held,
	}
	err := s.quoted(&str)
	s.raw = str.raw
	if err != nil {
		str.drop()
		return err
	}
	if value && (str.length > long || s.colon && s.named && str.length > 0) {
		str.decode()
		if str.file.finish() {
			return s.take(str.file.file())
		}
		if err := str.file.failed; err != nil {
			str.drop()
			return err
		}
	}
	str.drop()
	if str.cut {
		return str.broken()
	}
	return s.keep(str.raw, str.escaped, value)
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
func (s *scanner) keep(raw []byte, escaped, value bool) error {
	text := raw
	if escaped {
		text = []byte(unquote(raw))
	}
	if !value {
		s.named = bytes.HasSuffix(text, []byte("Base64Data")) || bytes.HasSuffix(text, []byte("DataURI"))
	}
	forged := value && bytes.HasPrefix(text, []byte(mark))
	need := len(raw) + len(`""`)
	if forged {
		need++
	}
	if int64(len(s.body)+need) > s.limits.Small {
		return errSmall()
	}
	s.body = append(s.body, '"')
	if forged {
		s.body = append(s.body, '$')
	}
	s.body = append(append(s.body, raw...), '"')
	return nil
}

// quoted is the content of one string as it streams by: as written, while that
// may still be needed, and as a file, once it is too long to wait for its end.
type quoted struct {
	raw     []byte
	room    int64 // bytes that raw may grow to
	cut     bool  // raw was given up: only a file has so much room
	escaped bool  // raw is not the text
	length  int64 // bytes of the text that it stands for
	value   bool  // it may be a file
	dir     string
	held    int64    // bytes that other files hold in memory
	file    *decoder // nil as long as raw is the text and the whole of it
}

// add takes a piece as written and as the text that it means.
func (q *quoted) add(raw, text []byte, escaped bool) error {
	q.length += int64(len(text))
	fits := int64(len(q.raw)+len(raw)) <= q.room
	if q.value && q.file == nil && (escaped || !fits || len(q.raw)+len(raw) > wait) {
		q.decode()
	}
	q.escaped = q.escaped || escaped
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
	case fits:
		q.raw = append(q.raw, raw...)
	case alive:
		q.raw, q.cut = q.raw[:0], true
	default:
		return fmt.Errorf("%w: a string over the limit", ErrTooLarge)
	}
	return nil
}

// wait is how long a string may grow, in bytes, before it is decoded as it comes:
// a shorter one is decoded at once, into as much memory as it needs.
const wait = maxMemory / 3 * 4

// decode begins the file with what there is of the string.
func (q *quoted) decode() {
	if q.file == nil {
		q.file = newDecoder(q.dir, q.held)
		q.file.write(q.raw)
	}
}

// broken is the error for a string that was given room as a file and is none.
func (q *quoted) broken() error {
	if q.length > long {
		return fmt.Errorf("%w: broken base64", ErrMalformed)
	}
	return errSmall()
}

func (q *quoted) drop() {
	if q.file != nil {
		q.file.drop()
	}
}

func errSmall() error { return fmt.Errorf("%w: over its limit without files", ErrTooLarge) }

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
			if err := q.add(w, w, false); err != nil {
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
	if err := q.add(raw, text, true); err != nil {
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

// unquote is the text of a JSON string, given without its quotes; empty if it is none.
func unquote(raw []byte) string {
	var text string
	if json.Unmarshal(slices.Concat([]byte{'"'}, raw, []byte{'"'}), &text) != nil {
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
