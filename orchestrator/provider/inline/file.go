package inline

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Bounds of what files may hold of the memory, in bytes.
const (
	maxMemory = 256 << 10 // one file
	allMemory = 1 << 20   // all files of a body
)

// maxHeader bounds the part of a data: URI before the comma, in bytes.
const maxHeader = 512

// File is one decoded file of a Reply. It may be used until the Reply is closed.
type File struct {
	memory []byte
	disk   *os.File // nil while it fits in memory
	size   int64
	closed bool
}

// Size is the length of the file in bytes.
func (f *File) Size() int64 { return f.size }

// Open reads the file from its start. It may be called more than once, and the
// readers may be used side by side. The error is fs.ErrClosed after Reply.Close.
func (f *File) Open() (io.ReadCloser, error) {
	switch {
	case f.closed:
		return nil, fmt.Errorf("open inline file: %w", fs.ErrClosed)
	case f.disk == nil:
		return io.NopCloser(bytes.NewReader(f.memory)), nil
	}
	return io.NopCloser(io.NewSectionReader(f.disk, 0, f.size)), nil
}

func (f *File) close() error {
	if f.closed {
		return nil
	}
	f.closed, f.memory = true, nil
	if f.disk == nil {
		return nil
	}
	err := f.disk.Close()
	// The name went when the file was made, where the system allows that.
	if gone := os.Remove(f.disk.Name()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	if err != nil {
		return fmt.Errorf("close inline file: %w", err)
	}
	return nil
}

// decoder decodes base64 as it comes, into memory and then to disk, and notices
// when it is none.
type decoder struct {
	out    File
	dir    string
	room   int    // bytes of memory that the file may take
	begun  bool   // the header, if there is one, is over
	head   []byte // what came while that is open
	group  []byte // up to 3 characters that wait for their fourth
	work   []byte // decoded bytes on their way
	padded bool   // nothing may follow
	bad    bool   // it is not base64
	failed error  // the disk's
}

func newDecoder(dir string, held int64) *decoder {
	return &decoder{dir: dir, room: int(min(maxMemory, max(0, allMemory-held)))}
}

func (d *decoder) write(p []byte) {
	if d.bad || d.failed != nil || len(p) == 0 {
		return
	}
	if d.begun {
		d.payload(p)
		return
	}
	if len(d.head) > 0 {
		d.head = append(d.head, p...)
		p = d.head
	}
	const scheme, coding = "data:", ";base64"
	n := min(len(p), len(scheme))
	if !strings.EqualFold(string(p[:n]), scheme[:n]) {
		d.begin(p)
		return
	}
	switch comma := bytes.IndexByte(p[:min(len(p), maxHeader+1)], ','); {
	case comma >= 0:
		if comma < len(coding) || !strings.EqualFold(string(p[comma-len(coding):comma]), coding) {
			d.bad = true
			return
		}
		d.begin(p[comma+1:])
	case len(p) > maxHeader:
		d.bad = true
	case len(d.head) == 0:
		d.head = bytes.Clone(p)
	}
}

func (d *decoder) begin(p []byte) {
	d.begun, d.head = true, nil
	d.payload(p)
}

func (d *decoder) payload(p []byte) {
	if len(p) == 0 {
		return
	}
	if d.padded || bytes.IndexByte(p, '\n') >= 0 || bytes.IndexByte(p, '\r') >= 0 {
		d.bad = true // an unescaped line break, which encoding/base64 would pass over
		return
	}
	for len(d.group) > 0 && len(p) > 0 {
		d.group, p = append(d.group, p[0]), p[1:]
		if len(d.group) == 4 {
			d.decode(d.group)
			d.group = d.group[:0]
			if len(p) > 0 {
				d.payload(p)
			}
			return
		}
	}
	whole := len(p) / 4 * 4
	d.decode(p[:whole])
	d.group = append(d.group, p[whole:]...)
	d.bad = d.bad || d.padded && len(d.group) > 0
}

// decode takes whole groups of four characters.
func (d *decoder) decode(p []byte) {
	need := len(p) / 4 * 3
	into, memory := d.work, d.out.disk == nil && len(d.out.memory)+need <= d.room
	switch {
	case memory:
		d.out.memory = slices.Grow(d.out.memory, need)
		into = d.out.memory[len(d.out.memory):][:need]
	case len(into) < need:
		into = make([]byte, need)
		d.work = into
	}
	n, err := base64.StdEncoding.Decode(into, p)
	if err != nil {
		d.bad = true
		return
	}
	d.padded = n < need
	d.out.size += int64(n)
	if memory {
		d.out.memory = d.out.memory[:len(d.out.memory)+n]
		return
	}
	d.toDisk(into[:n])
}

func (d *decoder) toDisk(p []byte) {
	if d.out.disk == nil {
		if d.failed = d.spill(); d.failed != nil {
			return
		}
	}
	if _, err := d.out.disk.Write(p); err != nil {
		d.failed = fmt.Errorf("write inline file: %w: %w", ErrDisk, err)
	}
}

// spill moves the file to disk. Its name is taken away at once.
func (d *decoder) spill() error {
	f, err := os.CreateTemp(d.dir, "inline-*")
	if err != nil {
		return fmt.Errorf("create inline file: %w: %w", ErrDisk, err)
	}
	_ = os.Remove(f.Name()) // where an open file keeps its name, close removes it
	d.out.disk = f
	if _, err := f.Write(d.out.memory); err != nil {
		return fmt.Errorf("write inline file: %w: %w", ErrDisk, err)
	}
	d.out.memory = nil
	return nil
}

// finish says, at the end of the string, whether it was base64.
func (d *decoder) finish() bool {
	if !d.begun { // shorter than a scheme, or a header without an end
		if len(d.head) >= len("data:") {
			return false
		}
		d.begin(d.head)
	}
	return !d.bad && d.failed == nil && len(d.group) == 0
}

// file hands the decoded file over.
func (d *decoder) file() *File { return &d.out }

// drop lets go of what was decoded. After file it must not be called.
func (d *decoder) drop() { _ = d.out.close() }
