package providertest

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Transport carries requests to a handler in this process: no sockets, so that
// it works on the fake time of a testing/synctest bubble, and bodies stream. Whatever
// a network does to a call happens here too: a context that ends, a body that is closed
// early, a handler that panics with http.ErrAbortHandler, and a body that is shorter than its Content-Length.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		closeBody(r)
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	in := r.Clone(ctx)
	if in.RequestURI = r.URL.RequestURI(); in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RemoteAddr = "192.0.2.1:1234"
	pr, pw := io.Pipe()
	w := &writer{header: http.Header{}, body: pw, began: make(chan struct{}), request: r, left: -1}
	w.response.Body = &body{PipeReader: pr, request: r, cancel: cancel}
	go func() {
		defer closeBody(r)
		w.end(serve(t.h, w, in))
		cancel()
	}()
	select {
	case <-w.began:
	case <-r.Context().Done():
		cancel()
		pr.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	if w.failed != nil {
		return nil, w.failed
	}
	// The body ends with the context, also while the handler does not notice.
	stop := context.AfterFunc(r.Context(), func() { pw.CloseWithError(r.Context().Err()) })
	w.response.Body.(*body).stop = stop
	return &w.response, nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

// serve reports whether the handler aborted.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			aborted = true
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// body is what the caller reads; closing it early tells the handler.
type body struct {
	*io.PipeReader
	request *http.Request
	cancel  context.CancelFunc
	stop    func() bool
}

// Read implements io.Reader. A handler that ends because the context did has not
// ended its answer.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.PipeReader.Read(p)
	if gone := b.request.Context().Err(); err != nil && gone != nil {
		err = gone
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	if b.stop != nil {
		b.stop()
	}
	b.cancel()
	return b.PipeReader.Close()
}

// writer is the handler's side.
type writer struct {
	header  http.Header
	body    *io.PipeWriter
	request *http.Request

	once     sync.Once
	began    chan struct{} // closed when response or failed is set
	response http.Response
	failed   error
	left     int64 // of the declared Content-Length; -1 = none declared
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(code int) {
	if code < 200 {
		return
	}
	w.once.Do(func() {
		w.response.StatusCode, w.response.Status = code, strconv.Itoa(code)+" "+http.StatusText(code)
		w.response.Proto, w.response.ProtoMajor, w.response.ProtoMinor = "HTTP/1.1", 1, 1
		w.response.Header, w.response.Request = w.header.Clone(), w.request
		w.response.ContentLength = -1
		if n, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil {
			w.response.ContentLength = n
			if w.request.Method != http.MethodHead {
				w.left = n
			}
		}
		close(w.began)
	})
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if w.header.Get("Content-Type") == "" {
		w.header.Set("Content-Type", http.DetectContentType(p))
	}
	w.WriteHeader(http.StatusOK)
	if w.request.Method == http.MethodHead {
		return len(p), nil
	}
	if w.left >= 0 {
		if int64(len(p)) > w.left {
			return 0, http.ErrContentLength
		}
		w.left -= int64(len(p))
	}
	return w.body.Write(p)
}

// Flush implements http.Flusher: what was written is on its way already.
func (w *writer) Flush() { w.WriteHeader(http.StatusOK) }

// SetReadDeadline is for http.ResponseController: there is no connection that could stall.
func (w *writer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for http.ResponseController.
func (w *writer) SetWriteDeadline(time.Time) error { return nil }

// end is called once, after the handler.
func (w *writer) end(aborted bool) {
	if aborted {
		w.once.Do(func() {
			w.failed = io.ErrUnexpectedEOF
			close(w.began)
		})
		w.body.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	w.WriteHeader(http.StatusOK)
	if w.left > 0 {
		w.body.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	w.body.Close()
}
