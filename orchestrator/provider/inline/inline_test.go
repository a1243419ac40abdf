package inline_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// noise is n bytes that depend on seed alone.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	for i, r := 0, rand.New(rand.NewPCG(seed, 1)); i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func content(t *testing.T, f *inline.File) []byte {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != f.Size() {
		t.Errorf("Size %d of a file of %d bytes", f.Size(), len(b))
	}
	return b
}

func TestFilesAreTaken(t *testing.T) {
	file := noise(1, 5000)
	b64 := encode(file)
	slashed := strings.ReplaceAll(b64, "/", `\/`)
	coded := strings.ReplaceAll(strings.ReplaceAll(b64, "/", `\u002f`), "+", `\u002B`)
	wrapped := b64[:76] + `\r\n` + b64[76:400] + `\u000a` + b64[400:]
	short := encode([]byte("hi"))
	prompt := strings.Repeat("a fox, ", 1000)
	word := strings.Repeat("a", 6001) // base64 by its letters, but not by its length
	for name, c := range map[string]struct {
		in, out string
		files   [][]byte
	}{
		"bare":                  {`{"x":"` + b64 + `"}`, `{"x":"$inline:1"}`, [][]byte{file}},
		"data URI":              {`["data:image/png;base64,` + b64 + `"]`, `["$inline:1"]`, [][]byte{file}},
		"data URI, upper case":  {`["DATA:IMAGE/PNG;BASE64,` + b64 + `"]`, `["$inline:1"]`, [][]byte{file}},
		"data URI, escaped":     {`["data:image\/png;base64,` + slashed + `"]`, `["$inline:1"]`, [][]byte{file}},
		"escaped slashes":       {`["` + slashed + `"]`, `["$inline:1"]`, [][]byte{file}},
		"escaped letters":       {`["` + coded + `"]`, `["$inline:1"]`, [][]byte{file}},
		"escaped line breaks":   {`["` + wrapped + `"]`, `["$inline:1"]`, [][]byte{file}},
		"two, in order":         {`{"a":"` + b64 + `","b":{"c":["` + b64 + `"]}}`, `{"a":"$inline:1","b":{"c":["$inline:2"]}}`, [][]byte{file, file}},
		"top level":             {`"` + b64 + `"`, `"$inline:1"`, [][]byte{file}},
		"key is no value":       {`{"` + b64 + `":1}`, `{"` + b64 + `":1}`, nil},
		"short, other key":      {`{"x":"` + short + `"}`, `{"x":"` + short + `"}`, nil},
		"short, named":          {`{"imageBase64Data" : "` + short + `"}`, `{"imageBase64Data" : "$inline:1"}`, [][]byte{[]byte("hi")}},
		"short, named data URI": {`{"imageDataURI":"data:image/png;base64,` + short + `"}`, `{"imageDataURI":"$inline:1"}`, [][]byte{[]byte("hi")}},
		"named, not base64":     {`{"imageDataURI":"http://x/"}`, `{"imageDataURI":"http://x/"}`, nil},
		"named, other coding":   {`{"imageDataURI":"data:image/png,` + short + `"}`, `{"imageDataURI":"data:image/png,` + short + `"}`, nil},
		"named, empty":          {`{"imageDataURI":""}`, `{"imageDataURI":""}`, nil},
		"named key ends":        {`{"imageDataURI":1,"x":"` + short + `"}`, `{"imageDataURI":1,"x":"` + short + `"}`, nil},
		"long prompt":           {`{"p":"` + prompt + `"}`, `{"p":"` + prompt + `"}`, nil},
		"long word":             {`{"p":"` + word + `"}`, `{"p":"` + word + `"}`, nil},
		"late stranger":         {`["` + b64 + `!"]`, `["` + b64 + `!"]`, nil},
		"after the padding":     {`["` + b64 + `AAAA"]`, `["` + b64 + `AAAA"]`, nil},
		"forged mark":           {`{"x":"$inline:1","y":"\u0024inline:2","$inline:3":0}`, `{"x":"$$inline:1","y":"$\u0024inline:2","$inline:3":0}`, nil},
		"other escapes":         {`{"x":"a\"b\\c\u00e9\ud83e\udd8a\n\t"}`, `{"x":"a\"b\\c\u00e9\ud83e\udd8a\n\t"}`, nil},
		"scalars":               {` [1.50,true,null,{}] `, ` [1.50,true,null,{}] `, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, read := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
			} {
				got, err := inline.Read(read(strings.NewReader(c.in)), inline.Limits{Dir: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				defer got.Close()
				if string(got.Body) != c.out {
					t.Fatalf("body\n%.300s, want\n%.300s", got.Body, c.out)
				}
				if got.Digest != events.Digest([]byte(c.in)) {
					t.Errorf("digest %s is not of the body as received", got.Digest)
				}
				if len(got.Files) != len(c.files) {
					t.Fatalf("%d files, want %d", len(got.Files), len(c.files))
				}
				for i, want := range c.files {
					if !bytes.Equal(content(t, got.Files[i]), want) {
						t.Errorf("file %d differs", i+1)
					}
				}
			}
		})
	}
}

func TestBadBodiesLeaveNothingBehind(t *testing.T) {
	big := encode(noise(2, 2<<20)) // over the default for small JSON
	many := strings.Repeat(`"`+encode(noise(3, 4000))+`",`, inline.MaxFiles)
	cause := errors.New("the line is cut")
	for name, c := range map[string]struct {
		in   io.Reader
		l    inline.Limits
		want error
	}{
		"empty":                 {strings.NewReader(""), inline.Limits{}, inline.ErrMalformed},
		"HTML":                  {strings.NewReader(`<a href="x">`), inline.Limits{}, inline.ErrMalformed},
		"two values":            {strings.NewReader(`{} {}`), inline.Limits{}, inline.ErrMalformed},
		"open string":           {strings.NewReader(`{"a":"` + big), inline.Limits{}, inline.ErrMalformed},
		"open escape":           {strings.NewReader(`["\u00`), inline.Limits{}, inline.ErrMalformed},
		"unknown escape":        {strings.NewReader(`["\x"]`), inline.Limits{}, inline.ErrMalformed},
		"bad hex":               {strings.NewReader(`["\u00zz"]`), inline.Limits{}, inline.ErrMalformed},
		"raw line break":        {strings.NewReader("[\"" + big + "\n\"]"), inline.Limits{}, inline.ErrMalformed},
		"broken base64":         {strings.NewReader(`["` + big + `="]`), inline.Limits{}, inline.ErrMalformed},
		"cut base64":            {strings.NewReader(`["` + big[:len(big)-1] + `"]`), inline.Limits{}, inline.ErrMalformed},
		"a good file, then not": {strings.NewReader(`["` + big + `",]`), inline.Limits{}, inline.ErrMalformed},
		"unbalanced":            {strings.NewReader(`]]}`), inline.Limits{}, inline.ErrMalformed},
		"body":                  {strings.NewReader(`["` + big + `"]`), inline.Limits{Body: 1 << 20}, inline.ErrTooLarge},
		"small":                 {strings.NewReader(`["aaaa ` + big + `"]`), inline.Limits{}, inline.ErrTooLarge},
		"small by spaces":       {strings.NewReader(strings.Repeat(" ", 101) + `1`), inline.Limits{Small: 100}, inline.ErrTooLarge},
		"small by a last word":  {strings.NewReader(strings.Repeat(" ", 95) + `"word5"`), inline.Limits{Small: 100}, inline.ErrTooLarge},
		"small by a key":        {strings.NewReader(`{"` + big + `":1}`), inline.Limits{}, inline.ErrTooLarge},
		"too many files":        {strings.NewReader(`[` + many + many + `1]`), inline.Limits{}, inline.ErrTooLarge},
		"the reader's own":      {io.MultiReader(strings.NewReader(`["`+big), iotest.ErrReader(cause)), inline.Limits{}, cause},
	} {
		t.Run(name, func(t *testing.T) {
			c.l.Dir = t.TempDir()
			files := descriptors()
			got, err := inline.Read(c.in, c.l)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if got.Body != nil || got.Files != nil {
				t.Error("a reply beside the error")
			}
			if left, _ := filepath.Glob(c.l.Dir + "/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if n := descriptors(); n > files {
				t.Errorf("%d open files before, %d after", files, n)
			}
		})
	}
}

// descriptors counts this process's open files, or is 0 where it cannot.
func descriptors() int {
	l, _ := os.ReadDir("/proc/self/fd")
	return len(l)
}

func TestExactLimitIsAllowed(t *testing.T) {
	in := `["` + encode(noise(4, 6000)) + `"]`
	r, err := inline.Read(strings.NewReader(in), inline.Limits{Body: int64(len(in)), Small: int64(len(`["$inline:1"]`))})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestCloseRemovesFilesAndMayBeRepeated(t *testing.T) {
	if err := (inline.Reply{}).Close(); err != nil {
		t.Errorf("closing the zero reply: %v", err)
	}
	dir := t.TempDir()
	small, large := noise(5, 6000), noise(6, 600<<10)
	r, err := inline.Read(strings.NewReader(fmt.Sprintf("[%q,%q]", encode(small), encode(large))), inline.Limits{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]byte{small, large, small, large} { // each twice
		if !bytes.Equal(content(t, r.Files[i%2]), want) {
			t.Errorf("file %d differs", i%2+1)
		}
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, f := range r.Files {
		if _, err := f.Open(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("open after close: %v", err)
		}
	}
}

// block is base64 without an end of its own.
var block = strings.Repeat("genstream+/ABCDE", 4<<10)

// base64Stream is n bytes of base64 between two pieces of JSON, made as it is read.
type base64Stream struct {
	head, tail string
	n          int
}

func (s *base64Stream) Read(p []byte) (int, error) {
	switch {
	case s.head != "":
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	case s.n > 0:
		n := copy(p[:min(len(p), s.n)], block[-s.n&15:])
		s.n -= n
		return n, nil
	case s.tail != "":
		n := copy(p, s.tail)
		s.tail = s.tail[n:]
		return n, nil
	}
	return 0, io.EOF
}

func TestLargeFileNeedsLittleMemory(t *testing.T) {
	const size = 48 << 20
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := heap()
	var during uint64
	in := &base64Stream{head: `{"data":[{"imageBase64Data":"`, n: size, tail: `"}]}`}
	look := &atEnd{r: in, do: func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		during = m.HeapInuse
	}}
	r, err := inline.Read(look, inline.Limits{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := r.Files[0].Size(); got != size/4*3 {
		t.Errorf("%d bytes decoded, want %d", got, size/4*3)
	}
	for when, now := range map[string]uint64{"at the end of the body": during, "afterwards": heap()} {
		if now > before+8<<20 {
			t.Errorf("%s: %d KiB of heap more than before", when, (now-before)>>10)
		}
	}
	if during == 0 {
		t.Fatal("nothing measured")
	}
}

type atEnd struct {
	r  io.Reader
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err == io.EOF {
		a.do()
	}
	return n, err
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	b64 := encode(noise(7, 3100))
	f.Add([]byte(`{"data":[{"taskUUID":"x","imageBase64Data":"aGk="}]}`), byte(0))
	f.Add([]byte(`{"a":{"imageDataURI":"data:image\/png;base64,aGk="},"b":["$inline:1","\u0024inline:2"]}`), byte(1))
	f.Add([]byte(`["`+b64+`",{"`+b64+`":"`+b64+`x"}]`), byte(2))
	f.Add([]byte(`["\ud83e\udd8a\ud800",1e5,-0.0,{"xBase64Data":["aGk="]}]`), byte(3))
	f.Fuzz(func(t *testing.T, in []byte, chunk byte) {
		var src io.Reader = bytes.NewReader(in)
		switch chunk % 3 {
		case 1:
			src = iotest.OneByteReader(src)
		case 2:
			src = iotest.HalfReader(src)
		}
		r, err := inline.Read(src, inline.Limits{Dir: dir})
		if err != nil {
			if json.Valid(in) && len(in) < inline.DefaultSmall && !errors.Is(err, inline.ErrTooLarge) {
				t.Fatalf("%v, of valid JSON %q", err, in)
			}
			return
		}
		defer r.Close()
		var before, after any
		if err := json.Unmarshal(r.Body, &after); err != nil && !json.Valid(r.Body) {
			t.Fatalf("stripped body %q: %v", r.Body, err)
		}
		if err := json.Unmarshal(in, &before); err != nil {
			if json.Valid(in) {
				return // valid, but a number out of range
			}
			t.Fatalf("taken, but not JSON: %q: %v", in, err)
		}
		compare(t, r, before, after)
	})
}

// compare holds a stripped value against the original.
func compare(t *testing.T, r inline.Reply, before, after any) {
	t.Helper()
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok || len(a) != len(b) {
			t.Fatalf("%v became %v", before, after)
		}
		for k := range b {
			compare(t, r, b[k], a[k])
		}
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) != len(b) {
			t.Fatalf("%v became %v", before, after)
		}
		for i := range b {
			compare(t, r, b[i], a[i])
		}
	case string:
		a, ok := after.(string)
		if !ok {
			t.Fatalf("%q became %v", b, after)
		}
		var n int
		if _, err := fmt.Sscanf(a, "$inline:%d", &n); err == nil {
			if i := strings.Index(b, ","); i >= 0 {
				b = b[i+1:]
			}
			want, err := base64.StdEncoding.DecodeString(b)
			if err != nil || !bytes.Equal(content(t, r.Files[n-1]), want) {
				t.Fatalf("file %d differs from %q: %v", n, b, err)
			}
			return
		}
		if strings.HasPrefix(b, "$inline:") {
			b = "$" + b
		}
		if a != b {
			t.Fatalf("%q became %q", b, a)
		}
	default:
		if before != after {
			t.Fatalf("%v became %v", before, after)
		}
	}
}
