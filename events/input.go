package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// inputPrefix begins the blob key of every file that was uploaded for inputs.
const inputPrefix = "inputs/"

// InputKey is the blob key of the uploaded file with this SHA-256 in lower-case
// hex, which is also how an input names it: {"$file":"inputs/<sha256>"}.
func InputKey(sha256 string) string { return inputPrefix + sha256 }

// ParseInputKey takes such a key apart. It accepts exactly what InputKey makes of
// 64 lower-case hex characters.
func ParseInputKey(key string) (sha256 string, ok bool) {
	sha256, ok = strings.CutPrefix(key, inputPrefix)
	return sha256, ok && len(sha256) == 64 && strings.Trim(sha256, "0123456789abcdef") == ""
}

// InputFile is one place in an input that names an uploaded file.
type InputFile struct {
	Path   string // JSON path of the place: "input.seedImage", "input.inputs.referenceImages[1]"
	SHA256 string // lower-case hex
	from   int    // the bytes that stand for the file are input[from:to]
	to     int
}

// InputError is an input in which a file is not named as it must be.
type InputError struct {
	Path   string // JSON path of the place
	Reason string // for the requester
}

func (e *InputError) Error() string { return e.Path + ": " + e.Reason }

// InputFiles finds every {"$file":"inputs/<sha256>"} of an input, at any depth, in
// the order of the text. The form is reserved: an object that has the key $file
// and is not of exactly that form, and more than MaxFiles of them, are an
// *InputError, like an input that is not JSON.
func InputFiles(input json.RawMessage) ([]InputFile, error) {
	// Most inputs name none, which is known at a tenth of the cost: the key is
	// there as it is, or with one of its characters written as \u00XX.
	if !bytes.Contains(input, []byte("$file")) && !bytes.Contains(input, []byte(`\u00`)) && json.Valid(input) {
		return nil, nil
	}
	s := fileScan{d: json.NewDecoder(bytes.NewReader(input)), path: []string{"input"}}
	s.d.UseNumber() // else a number that no float64 holds is an error
	if err := s.value(); err != nil {
		return nil, err
	}
	return s.found, nil
}

// ReplaceFiles is the input with each of its files replaced by a JSON string: what
// by says of the file's SHA-256. by is asked for each place, in order; its error
// is returned as it is. Everything else of the input stays as it was written.
func ReplaceFiles(input json.RawMessage, by func(sha256 string) (string, error)) (json.RawMessage, error) {
	files, err := InputFiles(input)
	if err != nil || len(files) == 0 {
		return input, err
	}
	var out bytes.Buffer
	at := 0
	for _, f := range files {
		text, err := by(f.SHA256)
		if err != nil {
			return nil, err
		}
		quoted, err := json.Marshal(text)
		if err != nil {
			return nil, fmt.Errorf("replace %s: %w", f.Path, err)
		}
		out.Write(input[at:f.from])
		out.Write(quoted)
		at = f.to
	}
	out.Write(input[at:])
	return out.Bytes(), nil
}

// fileScan walks an input by its tokens, so that it knows where in the text each
// object begins and ends.
type fileScan struct {
	d     *json.Decoder
	path  []string
	found []InputFile
}

func (s *fileScan) value() error {
	t, err := s.d.Token()
	if err != nil {
		return s.wrong("is not JSON")
	}
	switch t {
	case json.Delim('{'):
		return s.object(int(s.d.InputOffset()) - 1)
	case json.Delim('['):
		for n := 0; s.d.More(); n++ {
			if err := s.inside("["+strconv.Itoa(n)+"]", s.value); err != nil {
				return err
			}
		}
		return s.close()
	}
	return nil
}

// object reads an object that began at the offset.
func (s *fileScan) object(from int) error {
	members, file := 0, ""
	for ; s.d.More(); members++ {
		key, err := s.d.Token()
		if err != nil {
			return s.wrong("is not JSON")
		}
		if key != "$file" {
			if err := s.inside("."+key.(string), s.value); err != nil {
				return err
			}
			continue
		}
		t, err := s.d.Token()
		name, isText := t.(string)
		if err != nil || !isText || name == "" {
			return s.wrong(`names a file by something else than "inputs/<sha256>"`)
		}
		file = name
	}
	if err := s.close(); err != nil || file == "" {
		return err
	}
	sha256, ok := ParseInputKey(file)
	switch {
	case members != 1:
		return s.wrong("has something beside $file")
	case !ok:
		return s.wrong(`names a file by something else than "inputs/<sha256>"`)
	case len(s.path) == 1:
		return s.wrong("is a file itself")
	case len(s.found) == MaxFiles:
		return s.wrong(fmt.Sprintf("is one file too many: an input names at most %d", MaxFiles))
	}
	s.found = append(s.found, InputFile{Path: s.where(), SHA256: sha256, from: from, to: int(s.d.InputOffset())})
	return nil
}

// close reads the end of an object or array.
func (s *fileScan) close() error {
	if _, err := s.d.Token(); err != nil {
		return s.wrong("is not JSON")
	}
	return nil
}

func (s *fileScan) inside(step string, read func() error) error {
	s.path = append(s.path, step)
	err := read()
	s.path = s.path[:len(s.path)-1]
	return err
}

func (s *fileScan) wrong(reason string) error { return &InputError{Path: s.where(), Reason: reason} }

// where is the present path, which is the requester's text and has any length.
func (s *fileScan) where() string { return Cut(strings.Join(s.path, ""), 256) }
