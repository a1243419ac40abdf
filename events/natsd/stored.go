package natsd

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/stream"
)

// stored reads single messages out of the log's block files. The server would read
// and index a raw block, 8 MB, for a message in the middle of a large log: at a million
// generations it then answered 26 of them a second (docs/decisions/011). Only blocks that the server has
// finished are read; they never change, since nothing is ever deleted from the log.
//
// Whatever is not as expected (the newest block, a file that is not there, another
// format, a sum that is wrong) is not an error but a message that has to be asked of
// the server. What is returned has passed the server's own checksum of it.
type stored struct {
	blocks *blocks

	mu     sync.RWMutex
	sealed []*sealed   // in order
	places int         // held in all of them
	failed map[int]int // blocks that could not be read, and how often
}

// sealed is a block that the server appends to no more.
type sealed struct {
	index  int
	first  uint64   // sequence of its first message
	places []uint32 // where each of its messages begins, and the end; nil = not read yet, or given up for others
}

// maxFailed is how often a block is looked at that cannot be read: its end may not
// have been written yet, but a format that we do not know stays one.
const maxFailed = 3

// maxPlaces bounds the memory of what is known of blocks: 64 MB, some 16 million
// messages. Beyond it all is forgotten, and read again where it is needed.
const maxPlaces = 16 << 20

// Stored is the log's message at a sequence, read without the server's help; false
// if the server has to be asked.
func (s *Server) Stored(sequence uint64) (stream.Entry, bool) { return s.stored.entry(sequence) }

func (s *stored) entry(sequence uint64) (stream.Entry, bool) {
	index, from, upto, ok := s.find(sequence)
	if !ok {
		return stream.Entry{}, false
	}
	e, err := readMessage(s.blocks.path(index), index, int64(from), int(upto-from))
	if err != nil || e.Sequence != sequence {
		s.forget() // it is not the file that was looked at
		return stream.Entry{}, false
	}
	return e, true
}

// find says where the message is.
func (s *stored) find(sequence uint64) (index int, from, upto uint32, ok bool) {
	s.mu.RLock()
	index, from, upto, ok = s.known(sequence)
	s.mu.RUnlock()
	if ok {
		return index, from, upto, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.look() != nil {
		return 0, 0, 0, false
	}
	i := s.at(sequence)
	if i < 0 {
		return 0, 0, 0, false
	}
	b, next := s.sealed[i], s.sealed[i+1]
	if b.places == nil && s.failed[b.index] < maxFailed {
		places, err := readPlaces(s.blocks.path(b.index), b.first, next.first)
		if err != nil {
			if s.failed == nil {
				s.failed = map[int]int{}
			}
			s.failed[b.index]++
			s.sealed, s.places = nil, 0 // the first sequence may be what is wrong
			return 0, 0, 0, false
		}
		if s.places += len(places); s.places > maxPlaces {
			s.places = len(places)
			for _, b := range s.sealed {
				b.places = nil
			}
		}
		b.places = places
	}
	return s.known(sequence)
}

// known is find in what has been read of the blocks. A lock is held.
func (s *stored) known(sequence uint64) (index int, from, upto uint32, ok bool) {
	i := s.at(sequence)
	if i < 0 || s.sealed[i].places == nil {
		return 0, 0, 0, false
	}
	b := s.sealed[i]
	n := sequence - b.first
	return b.index, b.places[n], b.places[n+1], true
}

// at is the number of the finished block that the sequence is in, -1 if there is
// none. The last of s.sealed is there for its first sequence only. A lock is held.
func (s *stored) at(sequence uint64) int {
	i, found := slices.BinarySearchFunc(s.sealed, sequence, func(b *sealed, n uint64) int {
		switch {
		case b.first < n:
			return -1
		case b.first > n:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i >= len(s.sealed)-1 {
		return -1
	}
	return i
}

// look finds blocks that have come since. The lock is held.
func (s *stored) look() error {
	if n := len(s.sealed); n > 0 {
		if _, err := os.Stat(s.blocks.path(s.sealed[n-1].index + 1)); err != nil {
			return nil // the last one is still the last one
		}
	}
	all, err := s.blocks.list()
	if err != nil {
		return err
	}
	for _, index := range all {
		if n := len(s.sealed); n > 0 && index <= s.sealed[n-1].index {
			continue
		}
		first, err := readFirst(s.blocks.path(index))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // empty yet
		}
		if err != nil {
			return err
		}
		s.sealed = append(s.sealed, &sealed{index: index, first: first})
	}
	return nil
}

func (s *stored) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed, s.places = nil, 0
}

// A message is stored as, with little-endian numbers: its length in 4 bytes, of which the top
// bit says that there are headers; sequence, 8; nanoseconds, 8; length of the
// subject, 2; subject; with headers their length, 4, and they; body; and 8 bytes of
// HighwayHash over all of it but the lengths (nats-server 2.15, server/filestore.go,
// writeMsgRecordLocked and msgFromBufEx). Two bits of the sequence mark what is not
// a message but the erasure of one.
const (
	messageHead = 22
	messageSum  = 8
	withHeaders = 1 << 31
	notMessage  = 1<<63 | 1<<62
	maxMessage  = 32 << 20 // nats-server, rlBadThresh
)

var errMessage = errors.New("not a message of a block file")

// length is that of the stored message that begins with head.
func length(head []byte) (int, error) {
	n := binary.LittleEndian.Uint32(head) &^ withHeaders
	if n < messageHead+messageSum || n > maxMessage || binary.LittleEndian.Uint64(head[4:])&notMessage != 0 {
		return 0, errMessage
	}
	return int(n), nil
}

func readFirst(path string) (sequence uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var head [messageHead]byte
	if n, _ := f.ReadAt(head[:], 0); n < len(head) {
		return 0, fs.ErrNotExist
	}
	if _, err := length(head[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(head[4:]), nil
}

// readPlaces goes through a block, which must hold every message from first until
// before next, and nothing else.
func readPlaces(path string, first, next uint64) ([]uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > math.MaxUint32 || next-first > uint64(info.Size()/messageHead) {
		return nil, errMessage
	}
	in := bufio.NewReaderSize(f, 256<<10)
	places := make([]uint32, 0, next-first+1)
	at := 0
	for sequence := first; sequence < next; sequence++ {
		head, err := in.Peek(messageHead)
		if err != nil {
			return nil, err
		}
		n, err := length(head)
		if err != nil || binary.LittleEndian.Uint64(head[4:]) != sequence {
			return nil, errMessage
		}
		if _, err := in.Discard(n); err != nil {
			return nil, err
		}
		places = append(places, uint32(at))
		at += n
	}
	if int64(at) != info.Size() {
		return nil, errMessage
	}
	return append(places, uint32(at)), nil
}

// readMessage reads one message and checks its sum, which is keyed with the names of
// stream and block.
func readMessage(path string, index int, from int64, size int) (stream.Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return stream.Entry{}, err
	}
	defer f.Close()
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, from); err != nil {
		return stream.Entry{}, err
	}
	if n, err := length(raw); err != nil || n != size {
		return stream.Entry{}, errMessage
	}
	rest := raw[messageHead : size-messageSum]
	n := int(binary.LittleEndian.Uint16(raw[20:]))
	if n > len(rest) {
		return stream.Entry{}, errMessage
	}
	subject, rest := rest[:n], rest[n:]
	var header []byte
	body := rest
	if binary.LittleEndian.Uint32(raw)&withHeaders != 0 {
		if len(rest) < 4 {
			return stream.Entry{}, errMessage
		}
		h := int(binary.LittleEndian.Uint32(rest))
		if rest = rest[4:]; h > len(rest) {
			return stream.Entry{}, errMessage
		}
		header, body = rest[:h], rest[h:]
	}
	if !bytes.Equal(sum(index, raw[4:20], subject, rest), raw[size-messageSum:]) {
		return stream.Entry{}, errMessage
	}
	var fields nats.Header
	if len(header) > 0 {
		if fields, err = nats.DecodeHeadersMsg(header); err != nil {
			return stream.Entry{}, err
		}
	}
	at := time.Unix(0, int64(binary.LittleEndian.Uint64(raw[12:]))).UTC()
	return stream.EntryOf(string(subject), binary.LittleEndian.Uint64(raw[4:]), at, fields, body), nil
}

func sum(index int, parts ...[]byte) []byte {
	key := sha256.Sum256([]byte(stream.Name + "-" + strconv.Itoa(index)))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(fmt.Sprintf("natsd: key of a sum: %v", err)) // it is of the right length
	}
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}
