package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

const mega = 1 << 20

// onEveryBucket runs a test on each kind of bucket there is.
func onEveryBucket(t *testing.T, test func(*testing.T, *blob.Bucket)) {
	t.Run("directory", func(t *testing.T) { test(t, open(t, "file://"+filepath.ToSlash(t.TempDir())+"/bucket")) })
	t.Run("memory", func(t *testing.T) { test(t, open(t, "mem://")) })
	t.Run("s3", func(t *testing.T) {
		server := s3Server(t)
		test(t, open(t, "s3://things?region=us-east-1&use_path_style=true&endpoint="+server.URL))
	})
}

func s3Server(t *testing.T) *httptest.Server {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	store := s3mem.New()
	if err := store.CreateBucket("things"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(store, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	return server
}

func open(t testing.TB, url string) *blob.Bucket {
	t.Helper()
	b, err := blob.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// png is a file of n bytes that is a PNG by its beginning.
func png(n int) []byte {
	b := bytes.Repeat([]byte("genstream "), n/10+1)[:n]
	copy(b, "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
	return b
}

func list(t *testing.T, b *blob.Bucket, prefix string) map[string]blob.Object {
	t.Helper()
	all := map[string]blob.Object{}
	for o, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all[o.Key] = o
	}
	return all
}

// isEmpty says that a failed write has left nothing at all.
func isEmpty(t *testing.T, b *blob.Bucket) {
	t.Helper()
	for key := range list(t, b, "") {
		t.Errorf("the bucket holds %s", key)
	}
	for o, err := range b.Leftovers(t.Context(), "") {
		t.Errorf("the bucket holds the leftover %s, %v", o.Key, err)
	}
}

func TestKeptFileReadsBackWhole(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		for _, size := range []int{16, 3071, 3072, 3073, 64<<10 + 1, 6 * mega} {
			want := png(size)
			file, err := b.Keep(t.Context(), anID, 3, iotest.HalfReader(bytes.NewReader(want)), int64(size))
			if err != nil {
				t.Fatalf("Keep %d bytes: %v", size, err)
			}
			sum := sha256.Sum256(want)
			if file.Size != int64(size) || file.SHA256 != hex.EncodeToString(sum[:]) || file.ContentType != "image/png" {
				t.Errorf("Keep %d bytes = %+v", size, file)
			}
			if id, slot, kind, err := blob.ParseKey(file.BlobKey); id != anID || slot != 3 || kind != blob.OutputFile || err != nil {
				t.Errorf("Keep's key is %q: %v", file.BlobKey, err)
			}
			r, err := b.Read(t.Context(), file.BlobKey)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) || r.Size() != int64(size) {
				t.Errorf("Read %d bytes: %d of %d, %v", size, len(got), r.Size(), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestKeepNeverWritesOver(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		for i := range 3 {
			if _, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(100+i)), mega); err != nil {
				t.Fatal(err)
			}
		}
		if all := list(t, b, "generations/"); len(all) != 3 {
			t.Errorf("3 writes of one slot left %d files", len(all))
		}
	})
}

func TestRawDeliveryReadsBack(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		want := []byte(`{"data":"` + strings.Repeat("x", 20<<10) + `"}`)
		key, err := b.KeepRaw(t.Context(), anID, want)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, kind, err := blob.ParseKey(key); kind != blob.RawDelivery || err != nil {
			t.Errorf("key %q: %v", key, err)
		}
		r, err := b.Read(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

func TestDeletedIsNotFound(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		file, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(100)), mega)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), file.BlobKey); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(t.Context(), file.BlobKey); !errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrBucket) {
			t.Errorf("Read = %v, want ErrNotFound", err)
		}
		if err := b.Delete(t.Context(), file.BlobKey); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("second Delete = %v, want ErrNotFound", err)
		}
		isEmpty(t, b)
	})
}

func TestListFindsEverythingUnderPrefix(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		want := map[string]int64{}
		const ids = 1030 // more than one page of every driver
		start := time.Now().Add(-time.Minute)
		var writers sync.WaitGroup
		var mu sync.Mutex // guards want
		for w := range 50 {
			writers.Go(func() {
				for i := w; i < ids; i += 50 {
					id := events.ID(fmt.Sprintf("0192f0c4-7b1e-7c3a-9d5e-%012x", i))
					key, err := b.KeepRaw(t.Context(), id, make([]byte, i))
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					want[key] = int64(i)
					mu.Unlock()
				}
			})
		}
		writers.Wait()
		all := list(t, b, "")
		for key, size := range want {
			if o, ok := all[key]; !ok || o.Size != size || o.ModTime.Before(start) {
				t.Errorf("%s is listed as %+v, want %d bytes", key, o, size)
			}
		}
		if len(all) != ids {
			t.Errorf("%d files, want %d", len(all), ids)
		}
		for prefix, n := range map[string]int{
			"generations/": ids, "generations/0192f0c4-7b1e-7c3a-9d5e-0000000000": 256,
			"generations/0192f0c4-7b1e-7c3a-9d5e-000000000001/":      1,
			"generations/0192f0c4-7b1e-7c3a-9d5e-000000000001/deliv": 1,
			"generations/0192f0c4-7b1e-7c3a-9d5e-000000000001/0":     0,
			"generations/0192f0c4-7b1e-7c3a-9d5e-00000000ffff/":      0,
			"inputs/": 0,
		} {
			if got := len(list(t, b, prefix)); got != n {
				t.Errorf("%d files under %q, want %d", got, prefix, n)
			}
		}
		for range b.List(t.Context(), "") {
			break // a reader that stops early is no error
		}
	})
}

// errBroken is a fault of the reader, not of the bucket.
var errBroken = errors.New("broken reader")

func TestFailedKeepLeavesNothing(t *testing.T) {
	type trial struct {
		reader func(cancel func()) io.Reader
		limit  int64
		want   error
		not    error
	}
	trials := map[string]trial{
		"reader fails at once": {func(func()) io.Reader { return iotest.ErrReader(errBroken) }, mega, errBroken, blob.ErrBucket},
		"reader fails in the head": {func(func()) io.Reader {
			return io.MultiReader(bytes.NewReader(png(1000)), iotest.ErrReader(errBroken))
		}, mega, errBroken, blob.ErrBucket},
		"reader fails late": {func(func()) io.Reader {
			return io.MultiReader(bytes.NewReader(png(6*mega)), iotest.ErrReader(errBroken))
		}, 64 * mega, errBroken, blob.ErrBucket},
		"reader ends unexpectedly": {func(func()) io.Reader {
			return io.MultiReader(bytes.NewReader(png(1000)), iotest.ErrReader(io.ErrUnexpectedEOF))
		}, mega, io.ErrUnexpectedEOF, blob.ErrBucket},
		"a byte too many":          {func(func()) io.Reader { return bytes.NewReader(png(4097)) }, 4096, blob.ErrSize, blob.ErrBucket},
		"a byte too many for head": {func(func()) io.Reader { return bytes.NewReader(png(101)) }, 100, blob.ErrSize, blob.ErrBucket},
		"endless":                  {func(func()) io.Reader { return io.MultiReader(bytes.NewReader(png(100)), endless{}) }, mega, blob.ErrSize, blob.ErrBucket},
		"empty":                    {func(func()) io.Reader { return bytes.NewReader(nil) }, mega, blob.ErrType, blob.ErrBucket},
		"a page":                   {func(func()) io.Reader { return strings.NewReader("<!doctype html><p>sorry") }, mega, blob.ErrType, blob.ErrBucket},
		"cancelled before": {func(cancel func()) io.Reader {
			cancel()
			return bytes.NewReader(png(100))
		}, mega, context.Canceled, nil},
		"cancelled in the midst": {func(cancel func()) io.Reader {
			return io.MultiReader(bytes.NewReader(png(6*mega)), hook(cancel), bytes.NewReader(png(mega)))
		}, 64 * mega, context.Canceled, nil},
		"cancelled at the end": {func(cancel func()) io.Reader {
			return io.MultiReader(bytes.NewReader(png(100000)), hook(cancel))
		}, 64 * mega, context.Canceled, nil},
	}
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		for name, c := range trials {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := b.Keep(ctx, anID, 0, c.reader(cancel), c.limit)
			cancel()
			if !errors.Is(err, c.want) || c.not != nil && errors.Is(err, c.not) || c.want == context.Canceled && !errors.Is(err, blob.ErrBucket) {
				t.Errorf("%s: %v; want %v", name, err, c.want)
			}
			if _, err := b.KeepRaw(ctx, anID, []byte("{}")); !errors.Is(err, blob.ErrBucket) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: KeepRaw after the end: %v", name, err)
			}
			isEmpty(t, b)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// hook does something when the reading comes to it.
type hook func()

func (h hook) Read([]byte) (int, error) { h(); return 0, io.EOF }

func TestFaultsOfTheBucketAreItsOwn(t *testing.T) {
	directory := t.TempDir()
	inTheWay := open(t, directory)
	if err := os.WriteFile(filepath.Join(directory, "generations", string(anID)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := open(t, "mem://")
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
	}))
	defer locked.Close()
	s3Server(t) // for its credentials
	denied := open(t, "s3://things?region=us-east-1&use_path_style=true&endpoint="+locked.URL)
	for name, b := range map[string]*blob.Bucket{"a file in the way": inTheWay, "closed": closed, "denied": denied} {
		if _, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(100)), mega); !errors.Is(err, blob.ErrBucket) {
			t.Errorf("%s: Keep = %v", name, err)
		}
		if _, err := b.KeepRaw(t.Context(), anID, []byte("{}")); !errors.Is(err, blob.ErrBucket) {
			t.Errorf("%s: KeepRaw = %v", name, err)
		}
		if name == "a file in the way" {
			continue // of writing only
		}
		if _, err := b.Read(t.Context(), aKey); !errors.Is(err, blob.ErrBucket) || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%s: Read = %v", name, err)
		}
		if err := b.Delete(t.Context(), aKey); !errors.Is(err, blob.ErrBucket) {
			t.Errorf("%s: Delete = %v", name, err)
		}
		var last error
		for _, last = range b.List(t.Context(), "") {
		}
		if !errors.Is(last, blob.ErrBucket) {
			t.Errorf("%s: List ends with %v", name, last)
		}
	}
}

// A server that has written the file and then says no is the case in which a
// failed write leaves something, unless it is taken back.
func TestWriteWithALostAnswerIsTakenBack(t *testing.T) {
	server := s3Server(t)
	var puts, deletes atomic.Int32
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			puts.Add(1)
			server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
			return
		case http.MethodDelete:
			deletes.Add(1)
		}
		server.Config.Handler.ServeHTTP(w, r)
	}))
	defer liar.Close()
	b := open(t, "s3://things?region=us-east-1&use_path_style=true&endpoint="+liar.URL)
	if _, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(100)), mega); !errors.Is(err, blob.ErrBucket) {
		t.Errorf("Keep = %v", err)
	}
	isEmpty(t, b)
	if puts.Load() == 0 || deletes.Load() == 0 {
		t.Errorf("%d puts, %d deletes: the file was never there", puts.Load(), deletes.Load())
	}
}

func TestRangesAreServed(t *testing.T) {
	want := png(10000)
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		file, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(want), mega)
		if err != nil {
			t.Fatal(err)
		}
		serve := func(method string, header map[string]string) *http.Response {
			r, err := b.Read(t.Context(), file.BlobKey)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			req := httptest.NewRequest(method, "/", nil)
			for k, v := range header {
				req.Header.Set(k, v)
			}
			rec := httptest.NewRecorder()
			rec.Header().Set("ETag", `"`+file.SHA256+`"`)
			rec.Header().Set("Content-Type", file.ContentType)
			http.ServeContent(rec, req, "", time.Time{}, r)
			return rec.Result()
		}
		for _, c := range []struct {
			name, method string
			header       map[string]string
			code         int
			body         []byte
		}{
			{"whole", "GET", nil, 200, want},
			{"head", "HEAD", nil, 200, nil},
			{"beginning", "GET", map[string]string{"Range": "bytes=0-99"}, 206, want[:100]},
			{"middle", "GET", map[string]string{"Range": "bytes=5000-5999"}, 206, want[5000:6000]},
			{"suffix", "GET", map[string]string{"Range": "bytes=-7"}, 206, want[9993:]},
			{"open end", "GET", map[string]string{"Range": "bytes=9000-"}, 206, want[9000:]},
			{"outside", "GET", map[string]string{"Range": "bytes=10000-"}, 416, []byte("invalid range: failed to overlap\n")},
			{"known", "GET", map[string]string{"If-None-Match": `"` + file.SHA256 + `"`}, 304, nil},
			{"range of another", "GET", map[string]string{"Range": "bytes=0-9", "If-Range": `"x"`}, 200, want},
		} {
			res := serve(c.method, c.header)
			got, err := io.ReadAll(res.Body)
			if res.StatusCode != c.code || err != nil || !bytes.Equal(got, c.body) {
				t.Errorf("%s: %d with %d bytes, %v; want %d with %d", c.name, res.StatusCode, len(got), err, c.code, len(c.body))
			}
		}
	})
}

func TestReaderSeeks(t *testing.T) {
	want := png(200000)
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		file, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(want), mega)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Read(t.Context(), file.BlobKey)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := iotest.TestReader(r, want); err != nil {
			t.Error(err)
		}
	})
}
