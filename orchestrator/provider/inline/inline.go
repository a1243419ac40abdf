// Package inline takes the files out of a JSON body while the body streams in,
// so that a delivery of many megabytes of base64 costs little memory and what is
// left of it is small enough to parse, and to keep in the log.
//
// # What is taken
//
// A string value (never an object's key) becomes a file if it is base64, with
// or without a data: URI in front, and either its text is longer than 4 KiB, or it is
// the value of a key that ends in Base64Data or DataURI, however short. In its
// place stands the string "$inline:N", N counted from 1. A string that is not
// base64 to its last character stays what it is.
//
// A string that begins with "$inline:" in the body as received gets one more $ in
// front, so that a mark in [Reply.Body] is always one that Read set.
//
// # Base64
//
// means the alphabet of RFC 4648 section 4 with its padding; escaped line breaks
// are passed over, as encoding/base64 does it, and so are the JSON escapes that some
// encoders write for a slash.
//
// # Memory
//
// Read holds the stripped JSON (Limits.Small), at most the same again of one
// string of which it is not yet known what it is, and up to 1 MiB of decoded files, of
// each file 256 KiB at most; the rest of the files is on disk. Buffers of up to
// 512 KiB are used again by later calls; a Reply holds none of them. Those temporary
// files have no name any more while they are used, so that a killed process
// leaves none behind. How many bodies cost that much at a time is for [Turns] to say.
package inline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Errors of Read. After any error nothing is left on disk.
var (
	// ErrTooLarge is a body over Limits.Body, JSON over Limits.Small, or more than MaxFiles files.
	ErrTooLarge = errors.New("body too large")
	// ErrMalformed is a body that is not one JSON value, or a file over Limits.Small whose base64 is broken.
	ErrMalformed = errors.New("malformed body")
	// ErrDisk is a disk that did not take a file; the same body may be read later.
	ErrDisk = errors.New("a file could not be kept")
)

// Defaults of Limits, in bytes.
const (
	DefaultBody  = 64 << 20
	DefaultSmall = 1 << 20
)

// MaxFiles is how many files one body may hold.
const MaxFiles = 64

// mark is what a file is replaced by, before its number.
const mark = "$inline:"

// long is the length of text above which any base64 string is a file, in bytes.
const long = 4 << 10

// Limits bound one Read.
type Limits struct {
	Body  int64  // bytes of the body as received; 0 = DefaultBody
	Small int64  // bytes of the JSON without its files; 0 = DefaultSmall
	Dir   string // folder for temporary files; empty = os.TempDir()
	Turn  *Turn  // what a body over 64 KiB waits for; nil = nothing
}

// Reply is a body without its files, and the files. The zero Reply is empty.
type Reply struct {
	Body   []byte // valid JSON; the Nth file is the string "$inline:N"
	Digest string // of the body as received, in the form of events.Digest
	Files  []*File

	turn *Turn
}

// Close lets go of the files, and gives the turn to the next; what was opened
// from the files cannot be read any more. It may be called again.
func (r Reply) Close() error {
	defer r.turn.end()
	var errs []error
	for _, f := range r.Files {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}

// Read reads r to its end. Errors wrap ErrTooLarge, ErrMalformed or ErrDisk, or are
// those of r.
func Read(r io.Reader, l Limits) (Reply, error) {
	if l.Body <= 0 {
		l.Body = DefaultBody
	}
	if l.Small <= 0 {
		l.Small = DefaultSmall
	}
	s := newScanner(r, l)
	defer s.release()
	err := s.run()
	if err == nil && !json.Valid(s.body) {
		err = fmt.Errorf("%w: not JSON", ErrMalformed)
	}
	if err != nil {
		s.discard()
		l.Turn.end()
		return Reply{}, fmt.Errorf("read body: %w", err)
	}
	return Reply{Body: bytes.Clone(s.body), Digest: s.src.digest(), Files: s.files, turn: l.Turn}, nil
}

// source counts and hashes what is read.
type source struct {
	r    io.Reader
	left int64 // bytes that may come
	free int64 // those of them that need no turn
	turn *Turn
	sum  hash.Hash
}

func (s *source) Read(p []byte) (int, error) {
	if s.free <= 0 {
		if err := s.turn.take(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > s.left+1 {
		p = p[:s.left+1] // one more than allowed tells a body that is too long from one that fits
	}
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	s.free -= int64(n)
	if s.left -= int64(n); s.left < 0 {
		return 0, fmt.Errorf("%w: over its limit as received", ErrTooLarge)
	}
	return n, err
}

func (s *source) digest() string {
	var sum [sha256.Size]byte
	return hex.EncodeToString(s.sum.Sum(sum[:0])[:16])
}
