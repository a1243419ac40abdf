package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/genstream/genstream/events"
)

const (
	defaultMaxSize = 2 << 30 // video; a picture is far below
	defaultTimeout = 5 * time.Minute
	defaultMinRate = 64 << 10

	maxRedirects = 3
	grace        = 10 * time.Second // how far a body may fall behind MinRate
)

// FetchConfig is what a Fetcher needs. Zero values stand for the defaults.
type FetchConfig struct {
	Bucket  *Bucket       // required
	MaxSize int64         // of one file, bytes; default 2 GiB
	Timeout time.Duration // for one download, writing to the bucket included; default 5 min
	MinRate int64         // bytes per second that a body may not stay below for more than 10 s; default 64 KiB

	// AllowHosts are the hosts of provider base URLs that the operator himself has
	// set, each as host:port, or as a host alone for ports 80 and 443. Exactly these
	// may be asked over http too, on that port, and may have loopback and private
	// addresses; link-local ones (cloud metadata) stay closed.
	AllowHosts []string

	// Transport replaces the one that checks addresses as it dials. Only tests that
	// have no sockets set it. It must heed the request's context.
	Transport http.RoundTripper
}

// Fetcher downloads the files of outputs into the bucket. Fetch may be called
// from any goroutine.
type Fetcher struct {
	cfg       FetchConfig
	gate      gate
	transport http.RoundTripper
}

// NewFetcher makes a Fetcher. A config without a bucket panics.
func NewFetcher(cfg FetchConfig) *Fetcher {
	return newFetcher(cfg, net.DefaultResolver, 80, 443)
}

// newFetcher lets tests have names and ports of their own.
func newFetcher(cfg FetchConfig, names *net.Resolver, ports ...uint16) *Fetcher {
	if cfg.Bucket == nil {
		panic("blob: a Fetcher without a bucket")
	}
	if cfg.MaxSize <= 0 {
		cfg.MaxSize = defaultMaxSize
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MinRate <= 0 {
		cfg.MinRate = defaultMinRate
	}
	f := &Fetcher{cfg: cfg, gate: newGate(cfg.AllowHosts, names, ports), transport: cfg.Transport}
	if f.transport == nil {
		f.transport = f.gate.transport()
	}
	return f
}

// FetchError is a download that failed. Its text is fit for a user: it has the
// host of the URL at most, never the path or the query, which are often a key to
// the file, and no address of our network.
type FetchError struct {
	// Code says what may come of another try:
	//
	//	""                      the same URL may work later
	//	events.CodeFetchGone    this URL will not work any more; the provider may have a fresh one
	//	events.CodeFetchSize    the file is over the limit, for good
	//	events.CodeFetchType    the file is of no kind that is kept, for good
	//	events.CodeFetchForbid  nothing is fetched from there, for good
	Code string
	Err  error
}

// Error implements error.
func (e *FetchError) Error() string { return "fetch file: " + e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e *FetchError) Unwrap() error { return e.Err }

// LogValue is the error for the operator: with the cause that Error keeps back.
func (e *FetchError) LogValue() slog.Value {
	text := e.Error()
	if m, ok := errors.AsType[*masked](e.Err); ok && m.cause != nil {
		text += " (" + m.cause.Error() + ")"
	}
	return slog.StringValue(text)
}

// masked is an error whose cause is not for users.
type masked struct {
	text  string
	cause error
}

func (m *masked) Error() string { return m.text }
func (m *masked) Unwrap() error { return m.cause }

func failed(code, text string, cause error) *FetchError {
	return &FetchError{Code: code, Err: &masked{text, cause}}
}

// The causes with which a download is cancelled.
var (
	errSlow = errors.New("the file comes too slowly")
	errLate = errors.New("the download takes too long")
)

// Fetch downloads rawURL into the bucket as the file of one output, which is
// durable when it returns. Every failure of the download is a *FetchError, and
// nothing of it is left in the bucket. Any other error is not the download's: it
// wraps ErrBucket, or the cause for which ctx ended.
func (f *Fetcher) Fetch(ctx context.Context, rawURL string, id events.ID, slot int) (events.File, error) {
	timed, cancel := context.WithTimeoutCause(ctx, f.cfg.Timeout, errLate)
	defer cancel()
	// The slowness of the provider ends the request, but not the writing.
	asking, stop := context.WithCancelCause(timed)
	defer stop(nil)

	res, err := f.ask(asking, rawURL)
	if err != nil {
		return events.File{}, f.because(ctx, asking, err)
	}
	defer res.Body.Close()
	if err := f.acceptable(res); err != nil {
		return events.File{}, err
	}
	b := &body{r: res.Body, want: res.ContentLength, pace: newPace(f.cfg.MinRate, func() { stop(errSlow) })}
	file, err := f.cfg.Bucket.Keep(timed, id, slot, b, f.cfg.MaxSize)
	host := res.Request.URL.Hostname()
	switch {
	case err == nil:
		return file, nil
	case errors.Is(err, ErrSize):
		err = f.tooLarge(host)
	case errors.Is(err, ErrType) && b.n == 0: // a hiccup rather than a verdict
		err = failed("", host+" sent an empty file", err)
	case errors.Is(err, ErrType):
		err = failed(events.CodeFetchType, host+" sent a file of a type that is not kept", err)
	case !errors.Is(err, ErrBucket):
		err = unreachable(host, err)
	}
	return events.File{}, f.because(ctx, asking, err)
}

// because puts the reason for which we ended a download ourselves in the place of
// what it looked like from below.
func (f *Fetcher) because(ctx, asking context.Context, err error) error {
	if ctx.Err() != nil { // the process ends, or the generation is over
		return fmt.Errorf("fetch file: %w", context.Cause(ctx))
	}
	fe, ours := errors.AsType[*FetchError](err)
	temporary := ours && fe.Code == ""
	switch cause := context.Cause(asking); {
	case temporary && cause == errSlow || errors.Is(err, errSlow):
		return failed("", fmt.Sprintf("the file came more slowly than %d bytes per second", f.cfg.MinRate), errSlow)
	case temporary && cause == errLate || errors.Is(err, errLate):
		return failed("", fmt.Sprintf("the file was not here within %s", f.cfg.Timeout), errLate)
	}
	return err
}

// ask sends the request and follows redirects, each of which is checked like the
// first URL. It does so itself, because http.Client puts the whole URL into its errors.
func (f *Fetcher) ask(ctx context.Context, rawURL string) (*http.Response, error) {
	u, err := f.gate.check(rawURL)
	if err != nil {
		return nil, err
	}
	for range maxRedirects + 1 {
		// No Accept-Encoding, no Accept: the file as it is.
		req := (&http.Request{
			Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"User-Agent": {"genstream"}},
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}).WithContext(ctx)
		res, err := f.transport.RoundTrip(req)
		if err != nil {
			return nil, unreachable(u.Hostname(), err)
		}
		switch res.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			res.Request = req
			return res, nil
		}
		res.Body.Close()
		next, err := u.Parse(res.Header.Get("Location"))
		if err != nil || *next == *u { // no Location parses as the same URL
			return nil, failed("", u.Hostname()+" sent a redirect that is not a URL", nil)
		}
		if u, err = f.gate.check(next.String()); err != nil {
			return nil, err
		}
	}
	return nil, failed("", fmt.Sprintf("more than %d redirects, the last to %s", maxRedirects, u.Hostname()), nil)
}

// acceptable judges an answer by its head. Signed URLs that have expired are
// refused in many ways (S3 says 403, GCS 400), so every 4xx that is not about the
// moment means that this URL has had its day.
func (f *Fetcher) acceptable(res *http.Response) error {
	host := res.Request.URL.Hostname()
	code := res.StatusCode
	switch {
	case code == http.StatusOK && res.ContentLength > f.cfg.MaxSize:
		return f.tooLarge(host)
	case code == http.StatusOK:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests,
		code < 400, code >= 500:
		return failed("", fmt.Sprintf("%s answered %d", host, code), nil)
	}
	return failed(events.CodeFetchGone, fmt.Sprintf("%s answered %d", host, code), nil)
}

func (f *Fetcher) tooLarge(host string) error {
	return failed(events.CodeFetchSize, fmt.Sprintf("%s sent a file of more than %d bytes", host, f.cfg.MaxSize), nil)
}

// unreachable puts what went wrong on the way into a user's words.
func unreachable(host string, err error) *FetchError {
	if refused(err) {
		return failed(events.CodeFetchForbid, host+" is at an address that nothing is fetched from", err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return failed("", host+" did not send the whole file", err)
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return failed("", "the host "+host+" was not found", err)
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return failed("", host+" did not answer in time", err)
	}
	return failed("", "the connection to "+host+" failed", err)
}

// body is the content as it comes: counted, held to the length that was announced,
// and to a pace.
type body struct {
	r    io.Reader
	want int64 // Content-Length, -1 = not announced
	n    int64
	pace *pace
}

func (b *body) Read(p []byte) (int, error) {
	b.pace.begin()
	n, err := b.r.Read(p)
	slow := b.pace.end(n)
	b.n += int64(n)
	switch {
	case b.want >= 0 && (b.n > b.want || err == io.EOF && b.n < b.want):
		return n, io.ErrUnexpectedEOF
	case err == nil:
		return n, slow
	}
	return n, err
}

// pace tells a slow sender from one that waits for us. Only the time spent in
// reading counts: every second of it costs a second of credit, every MinRate bytes
// earn one, and credit beyond the grace is not kept, so that a fast beginning buys no
// slow end.
type pace struct {
	credit time.Duration
	rate   int64 // bytes per second
	since  time.Time
	timer  *time.Timer
}

// newPace calls over, once, when a read has used up the credit and still waits.
func newPace(rate int64, over func()) *pace {
	p := &pace{credit: grace, rate: rate, timer: time.AfterFunc(grace, over)}
	p.timer.Stop()
	return p
}

func (p *pace) begin() {
	p.since = time.Now()
	p.timer.Reset(p.credit)
}

func (p *pace) end(n int) error {
	p.timer.Stop()
	earned := time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	p.credit = min(p.credit-time.Since(p.since)+earned, grace)
	if p.credit <= 0 {
		return errSlow
	}
	return nil
}
