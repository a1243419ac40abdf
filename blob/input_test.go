package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

func shaOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func TestInputIsNamedByItsContent(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		content := png(300_000)
		want := events.File{BlobKey: "inputs/" + shaOf(content), ContentType: "image/png", Size: 300_000, SHA256: shaOf(content)}
		for i, fresh := range []bool{true, false, false} {
			file, isNew, err := b.KeepInput(t.Context(), iotest.HalfReader(bytes.NewReader(content)), mega, t.TempDir())
			if err != nil || file != want || isNew != fresh {
				t.Fatalf("upload %d: %+v, fresh %t, %v; want %+v, fresh %t", i+1, file, isNew, err, want, fresh)
			}
		}
		if all := list(t, b, ""); len(all) != 1 || all[want.BlobKey].Size != want.Size {
			t.Errorf("the bucket holds %v", all)
		}
		r, file, err := b.OpenInput(t.Context(), want.SHA256)
		if err != nil || file != want {
			t.Fatalf("opened %+v, %v", file, err)
		}
		defer r.Close()
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, content) {
			t.Errorf("%d bytes read back, %v", len(back), err)
		}
		if _, _, err := b.OpenInput(t.Context(), shaOf(nil)); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("a file that is not there: %v", err)
		}
		for _, bad := range []string{"", "..", strings.ToUpper(want.SHA256), want.SHA256 + ".png", want.SHA256[1:], "../" + want.SHA256[3:]} {
			if _, _, err := b.OpenInput(t.Context(), bad); !errors.Is(err, blob.ErrKey) {
				t.Errorf("OpenInput(%q): %v", bad, err)
			}
		}
	})
}

func TestInputsAreListedBesideOutputs(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		in, _, err := b.KeepInput(t.Context(), bytes.NewReader(png(100)), mega, "")
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(200)), mega)
		if err != nil {
			t.Fatal(err)
		}
		for prefix, want := range map[string]int{
			"": 2, "inputs": 1, "inputs/": 1, in.BlobKey[:20]: 1, in.BlobKey: 1, "inputs/x": 0, "i": 1, "generations/": 1, within: 1, "g": 1, "x": 0,
		} {
			if all := list(t, b, prefix); len(all) != want {
				t.Errorf("%q lists %v, want %d files", prefix, all, want)
			}
		}
		if err := b.Delete(t.Context(), in.BlobKey); err != nil {
			t.Error(err)
		}
		if all := list(t, b, ""); len(all) != 1 || all[out.BlobKey].Size != 200 {
			t.Errorf("after the input was deleted there is %v", all)
		}
	})
}

func TestSameInputAtOnceIsOneWholeFile(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		content := png(400_000)
		spool := t.TempDir()
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				file, _, err := b.KeepInput(t.Context(), bytes.NewReader(content), mega, spool)
				if err != nil || file.SHA256 != shaOf(content) {
					t.Errorf("%+v, %v", file, err)
					return
				}
				// Whoever was answered may name it, whatever the others are doing.
				r, _, err := b.OpenInput(t.Context(), file.SHA256)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, content) {
					t.Errorf("%d bytes read back, %v", len(back), err)
				}
			})
		}
		writers.Wait()
		if all := list(t, b, ""); len(all) != 1 {
			t.Errorf("the bucket holds %v", all)
		}
		if left, err := os.ReadDir(spool); err != nil || len(left) != 0 {
			t.Errorf("the spool holds %v, %v", left, err)
		}
	})
}

func TestInputThatIsNotKeptLeavesNothing(t *testing.T) {
	broken := errors.New("broken reader")
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		for name, c := range map[string]struct {
			reader io.Reader
			limit  int64
			want   error
		}{
			"empty":              {bytes.NewReader(nil), mega, blob.ErrType},
			"a page":             {strings.NewReader("<!doctype html><script>alert(1)</script>"), mega, blob.ErrType},
			"an SVG":             {strings.NewReader(`<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`), mega, blob.ErrType},
			"a ZIP":              {strings.NewReader("PK\x03\x04" + strings.Repeat("\x00", 100)), mega, blob.ErrType},
			"gzip of a picture":  {strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00"), mega, blob.ErrType},
			"a form":             {strings.NewReader("--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n" + string(png(100))), mega, blob.ErrType},
			"a page, then a PNG": {strings.NewReader("<html>" + string(png(100))), mega, blob.ErrType},
			"a byte too many":    {bytes.NewReader(png(4097)), 4096, blob.ErrSize},
			"endless":            {io.MultiReader(bytes.NewReader(png(100)), endless{}), mega, blob.ErrSize},
			"broken off":         {io.MultiReader(bytes.NewReader(png(9000)), iotest.ErrReader(broken)), mega, broken},
			"cut short":          {io.MultiReader(bytes.NewReader(png(9000)), iotest.ErrReader(io.ErrUnexpectedEOF)), mega, io.ErrUnexpectedEOF},
		} {
			spool := t.TempDir()
			if file, fresh, err := b.KeepInput(t.Context(), c.reader, c.limit, spool); !errors.Is(err, c.want) || errors.Is(err, blob.ErrBucket) || fresh || file.BlobKey != "" {
				t.Errorf("%s: %+v, %t, %v; want %v", name, file, fresh, err, c.want)
			}
			if left, err := os.ReadDir(spool); err != nil || len(left) != 0 {
				t.Errorf("%s: the spool holds %v, %v", name, left, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := b.KeepInput(ctx, bytes.NewReader(png(100)), mega, ""); !errors.Is(err, blob.ErrBucket) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if _, _, err := b.KeepInput(t.Context(), bytes.NewReader(png(100)), mega, filepath.Join(t.TempDir(), "none")); !errors.Is(err, blob.ErrBucket) {
			t.Errorf("no spool: %v", err)
		}
		isEmpty(t, b)
	})
}

// TestDamagedInputIsMendedByItsNextUpload: a file of another size cannot be the
// one that its name promises.
func TestDamagedInputIsMendedByItsNextUpload(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	content := png(5000)
	file, _, err := b.KeepInput(t.Context(), bytes.NewReader(content), mega, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file.BlobKey), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.OpenInput(t.Context(), file.SHA256); !errors.Is(err, blob.ErrType) {
		t.Errorf("an empty file is opened: %v", err)
	}
	if _, fresh, err := b.KeepInput(t.Context(), bytes.NewReader(content), mega, ""); err != nil || !fresh {
		t.Errorf("fresh %t, %v", fresh, err)
	}
	if back, err := fs.ReadFile(os.DirFS(dir), file.BlobKey); err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d bytes are there, %v", len(back), err)
	}
}

func TestOnlySomeBucketsSign(t *testing.T) {
	content := png(5000)
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		if _, _, err := b.KeepInput(t.Context(), bytes.NewReader(content), mega, ""); err != nil {
			t.Fatal(err)
		}
		url, err := b.SignInput(t.Context(), shaOf(content), time.Minute)
		if !strings.HasSuffix(t.Name(), "s3") {
			if !errors.Is(err, blob.ErrUnsigned) {
				t.Errorf("signed %q, %v", url, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if back, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(back, content) {
			t.Errorf("%s: %d bytes, %v", res.Status, len(back), err)
		}
		if _, err := b.SignInput(t.Context(), "../"+fmt.Sprint(anID), time.Minute); !errors.Is(err, blob.ErrKey) {
			t.Errorf("signed what is no input: %v", err)
		}
	})
}
