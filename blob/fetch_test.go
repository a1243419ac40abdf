package blob_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

// canary is a key to a file, as CDNs put it into URLs.
const canary = "canary-5f3a"

// failure fetches what must fail, and looks at all that must hold then.
func failure(t *testing.T, f *blob.Fetcher, b *blob.Bucket, url string) *blob.FetchError {
	t.Helper()
	_, err := f.Fetch(t.Context(), url, anID, 0)
	fe, ok := errors.AsType[*blob.FetchError](err)
	if !ok {
		t.Errorf("%T %v; want a *FetchError", err, err)
		return &blob.FetchError{Code: "none", Err: errors.New("none")}
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("failed", "error", err)
	if text := fe.Error() + log.String(); strings.Contains(text, canary) {
		t.Errorf("the error tells the URL's secret: %s", text)
	}
	isEmpty(t, b)
	return fe
}

// serving is a Fetcher and a server that it may ask.
func serving(t *testing.T, cfg blob.FetchConfig, h http.HandlerFunc) (*blob.Fetcher, *blob.Bucket, string) {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	cfg.Bucket = open(t, "mem://")
	cfg.AllowHosts = []string{server.Listener.Addr().String()}
	return blob.NewFetcher(cfg), cfg.Bucket, server.URL + "/" + canary + "/x.png?sig=" + canary
}

func TestAnswerDecidesWhatMayComeOfAnotherTry(t *testing.T) {
	page := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>no", code) }
	}
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			io.WriteString(c, text)
			c.Close()
		}
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		code  string
	}{
		"400":              {page(400), events.CodeFetchGone},
		"401":              {page(401), events.CodeFetchGone},
		"403":              {page(403), events.CodeFetchGone},
		"404":              {page(404), events.CodeFetchGone},
		"410":              {page(410), events.CodeFetchGone},
		"408":              {page(408), ""},
		"425":              {page(425), ""},
		"429":              {page(429), ""},
		"500":              {page(500), ""},
		"503":              {page(503), ""},
		"204":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, ""},
		"206":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206); w.Write(png(100)) }, ""},
		"304":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, ""},
		"300":              {page(300), ""},
		"redirect nowhere": {page(302), ""},
		"redirect to itself": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}, ""},
		"redirect to no URL": {raw("HTTP/1.1 302 Found\r\nLocation: https://x/%zz?" + canary + "\r\nContent-Length: 0\r\n\r\n"), ""},
		"empty":              {func(http.ResponseWriter, *http.Request) {}, ""},
		"html as png": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			io.WriteString(w, "<!doctype html><script>alert(1)</script>")
		}, events.CodeFetchType},
		"svg": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg"/>`)
		}, events.CodeFetchType},
		"announced too large": {raw(head + "Content-Length: 9999999\r\n\r\n"), events.CodeFetchSize},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			io.Copy(w, io.MultiReader(bytes.NewReader(png(99)), endless{}))
		}, events.CodeFetchSize},
		"less than announced": {raw(head + "Content-Length: 1000\r\n\r\n" + string(png(500))), ""},
		"chunks cut off":      {raw(head + "Transfer-Encoding: chunked\r\n\r\n64\r\n" + string(png(100)) + "\r\n"), ""},
		"cut off in the head": {raw("HTTP/1.1 200 OK\r\nContent-Le"), ""},
		"no HTTP":             {raw("SSH-2.0-OpenSSH\r\n"), ""},
		"huge head":           {raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", mega) + "\r\n\r\n"), ""},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			if v := r.Header.Get("Accept-Encoding"); v != "" {
				panic("asked for " + v)
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(png(1000))
			z.Write(make([]byte, 6*mega)) // over the limit if it were inflated
			z.Close()
		}, events.CodeFetchType},
	} {
		t.Run(name, func(t *testing.T) {
			f, b, url := serving(t, blob.FetchConfig{MaxSize: 5 * mega}, c.serve)
			if fe := failure(t, f, b, url); fe.Code != c.code {
				t.Errorf("code %q (%v), want %q", fe.Code, fe, c.code)
			}
		})
	}
}

func TestFetchedFileIsWhatWasServed(t *testing.T) {
	want := png(3 * mega)
	f, b, url := serving(t, blob.FetchConfig{MaxSize: 3 * mega}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write(want)
	})
	file, err := f.Fetch(t.Context(), url, anID, 2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Read(t.Context(), file.BlobKey)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) || file.Size != int64(len(want)) || file.ContentType != "image/png" {
		t.Errorf("%+v, %d bytes, %v", file, len(got), err)
	}
}

func TestAtMostThreeRedirects(t *testing.T) {
	var hops int
	f, b, url := serving(t, blob.FetchConfig{}, func(w http.ResponseWriter, r *http.Request) {
		if hops--; hops >= 0 {
			http.Redirect(w, r, fmt.Sprintf("/hop%d?sig=%s", hops, canary), http.StatusTemporaryRedirect)
			return
		}
		w.Write(png(100))
	})
	hops = 4
	if fe := failure(t, f, b, url); fe.Code != "" {
		t.Error(fe)
	}
	hops = 3
	if _, err := f.Fetch(t.Context(), url, anID, 0); err != nil {
		t.Error(err)
	}
}

func TestFaultOfTheBucketIsNotTheDownloads(t *testing.T) {
	f, b, url := serving(t, blob.FetchConfig{}, func(w http.ResponseWriter, _ *http.Request) { w.Write(png(100)) })
	b.Close()
	_, err := f.Fetch(t.Context(), url, anID, 0)
	if _, ok := errors.AsType[*blob.FetchError](err); ok || !errors.Is(err, blob.ErrBucket) {
		t.Errorf("%v; want ErrBucket and no *FetchError", err)
	}
}

func TestUnreachableHostMayComeBack(t *testing.T) {
	b := open(t, "mem://")
	closed := httptest.NewServer(nil)
	closed.Close()
	f := blob.NewFetcher(blob.FetchConfig{Bucket: b, AllowHosts: []string{closed.Listener.Addr().String()}})
	if fe := failure(t, f, b, closed.URL+"/?"+canary); fe.Code != "" || strings.Contains(fe.Error(), "dial") {
		t.Errorf("%q: %v", fe.Code, fe)
	}
	dns := &names{}
	f = blob.NewFetcherWith(blob.FetchConfig{Bucket: b}, dns.resolver(), 443)
	if fe := failure(t, f, b, "https://nowhere.test/?"+canary); fe.Code != "" {
		t.Errorf("%q: %v", fe.Code, fe)
	}
}

// wire is a provider's CDN without sockets: it answers with a body that script
// writes at its own pace, in fake time.
type wire struct {
	length int64
	script func(ctx context.Context, w io.Writer) error
}

func (s wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.script == nil {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	r, w := io.Pipe()
	ctx := req.Context()
	go func() {
		stop := context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
		defer stop()
		w.CloseWithError(s.script(ctx, w))
	}()
	return &http.Response{StatusCode: 200, Body: r, ContentLength: s.length, Header: http.Header{}}, nil
}

// drip writes n pieces of size bytes, one each gap, until ctx ends.
func drip(n, size int, gap time.Duration) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		data := png(n * size)
		for i := range n {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(gap):
			}
			if _, err := w.Write(data[i*size : (i+1)*size]); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestPaceOfADownload(t *testing.T) {
	hang := func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return ctx.Err() }
	after := func(first, then func(context.Context, io.Writer) error) func(context.Context, io.Writer) error {
		return func(ctx context.Context, w io.Writer) error {
			if err := first(ctx, w); err != nil {
				return err
			}
			return then(ctx, w)
		}
	}
	for name, c := range map[string]struct {
		script   func(context.Context, io.Writer) error
		size     int64         // of the file kept; 0 = none is
		min, max time.Duration // that it takes
	}{
		"no answer":                {nil, 0, 5 * time.Minute, 5 * time.Minute},
		"no body":                  {hang, 0, 10 * time.Second, 10 * time.Second},
		"a byte a second":          {drip(1000, 1, time.Second), 0, 10 * time.Second, 11 * time.Second},
		"half the rate":            {drip(100, 512, time.Second), 0, 19 * time.Second, 21 * time.Second},
		"fast, then silent":        {after(drip(10, 99<<10, time.Millisecond), hang), 0, 10 * time.Second, 11 * time.Second},
		"fast, then a byte a time": {after(drip(10, 99<<10, time.Millisecond), drip(1000, 1, time.Second)), 0, 10 * time.Second, 12 * time.Second},
		"just above the rate":      {drip(60, 1030, time.Second), 60 * 1030, time.Minute, time.Minute},
		"small and slow":           {drip(9, 100, time.Second), 900, 9 * time.Second, 9 * time.Second},
		"above the rate for ever":  {drip(1000, 1100, time.Second), 0, 5 * time.Minute, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, "mem://")
				f := blob.NewFetcher(blob.FetchConfig{Bucket: b, MinRate: 1 << 10, Transport: wire{length: -1, script: c.script}})
				start := time.Now()
				if c.size > 0 {
					file, err := f.Fetch(t.Context(), "https://cdn.test/x?"+canary, anID, 0)
					if err != nil || file.Size != c.size {
						t.Errorf("%+v, %v; want %d bytes", file, err, c.size)
					}
				} else if fe := failure(t, f, b, "https://cdn.test/x?"+canary); fe.Code != "" {
					t.Errorf("code %q: %v", fe.Code, fe)
				}
				if took := time.Since(start); took < c.min || took > c.max {
					t.Errorf("it took %s, want %s to %s", took, c.min, c.max)
				}
			})
		})
	}
}

func TestWrongLengthIsNotKept(t *testing.T) {
	for _, length := range []int64{99, 101, 1} {
		synctest.Test(t, func(t *testing.T) {
			b := open(t, "mem://")
			f := blob.NewFetcher(blob.FetchConfig{Bucket: b, Transport: wire{length: length, script: drip(1, 100, 0)}})
			if fe := failure(t, f, b, "https://cdn.test/x?"+canary); fe.Code != "" {
				t.Errorf("length %d: code %q: %v", length, fe.Code, fe)
			}
		})
	}
}

func TestEndOfTheCallerIsNotAVerdict(t *testing.T) {
	errOver := errors.New("the generation is over")
	for name, script := range map[string]func(context.Context, io.Writer) error{
		"before the answer": nil, "in the body": drip(10, 70<<10, time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, "mem://")
				f := blob.NewFetcher(blob.FetchConfig{Bucket: b, Transport: wire{length: -1, script: script}})
				ctx, cancel := context.WithTimeoutCause(t.Context(), 3500*time.Millisecond, errOver)
				defer cancel()
				_, err := f.Fetch(ctx, "https://cdn.test/x", anID, 0)
				if _, ok := errors.AsType[*blob.FetchError](err); ok || !errors.Is(err, errOver) {
					t.Errorf("%v; want the context's cause and no *FetchError", err)
				}
				isEmpty(t, b)
			})
		})
	}
}
