package runware

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// reply is one HTTP answer.
type reply struct {
	inline.Reply
	http   int           // the code
	after  time.Duration // Retry-After; 0 = unsaid
	broken error         // why Reply is empty: cut, too large, not JSON
}

// maxLarge is how many answers over 64 KiB are held at a time: 4 MiB of memory
// each while they come, 17 MiB while an S3 client takes their files. Others wait
// half read, as long as their call may take.
const maxLarge = 8

// post sends tasks. An error means that there was no answer at all.
func (p *Provider) post(ctx context.Context, turn *inline.Turn, tasks []byte) (reply, *provider.Error) {
	var sent trace
	req, err := http.NewRequestWithContext(sent.follow(ctx), http.MethodPost, p.cfg.BaseURL, bytes.NewReader(tasks))
	if err != nil {
		return reply{}, unreachable("the provider's address cannot be used", err)
	}
	req.Header.Set("Authorization", "Bearer "+p.cfg.Key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "genstream")
	resp, err := p.client.Do(req)
	if err != nil {
		if sent.never(err) {
			return reply{}, unreachable("the provider could not be reached", err)
		}
		e := events.Error{Code: "noAnswer", Message: "the provider did not answer", Class: events.Connection}
		if errors.Is(err, context.DeadlineExceeded) {
			e.Class = events.Timeout
		}
		return reply{}, &provider.Error{Kind: provider.Ambiguous, Err: e, Cause: err}
	}
	defer resp.Body.Close()
	r := reply{http: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"))}
	r.Reply, r.broken = inline.Read(resp.Body, inline.Limits{Dir: p.cfg.SpoolDir, Turn: turn})
	r.Body = []byte(p.scrub(string(r.Body)))
	return r, nil
}

func unreachable(message string, cause error) *provider.Error {
	return &provider.Error{Kind: provider.Unreachable, Cause: cause, Err: events.Error{
		Code: "unreachable", Message: message, Class: events.Connection,
	}}
}

// trace tells whether a request can have left this machine.
type trace struct {
	wanted, got atomic.Bool // a connection
}

func (t *trace) follow(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	})
}

// never says whether nothing was sent. A transport that reports nothing (one of a
// test, say) leaves only the error to judge by.
func (t *trace) never(err error) bool {
	if t.wanted.Load() && !t.got.Load() {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// maxAfter bounds what a Retry-After is believed.
const maxAfter = 10 * time.Minute

func retryAfter(header string) time.Duration {
	header = strings.TrimSpace(header)
	var d time.Duration
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxAfter)
}

// whole is what an answer means that says nothing of single tasks. e is its
// error, nil if it has none. Only a definite no is more than Ambiguous.
func (p *Provider) whole(r reply, e item) *provider.Error {
	out := &provider.Error{Kind: provider.Ambiguous, Cause: r.broken, Err: p.errorOf(e, r.http)}
	class := out.Err.Class
	says := e.has("code") // the code is the provider's, not made of the HTTP code
	switch {
	case class.Account():
		out.Kind = provider.Account
	case notNow(e.text("code")) && r.http < 500, class == events.RateLimit:
		out.Kind, out.After = provider.Busy, r.after
	case says && (class == events.Validation || class == events.Safety || class == events.NotFound):
		out.Kind = provider.Refused
	case r.http == http.StatusUnauthorized || r.http == http.StatusPaymentRequired || r.http == http.StatusForbidden:
		out.Kind = provider.Account
		out.Err.Class = classOfHTTP(r.http)
	case r.http == http.StatusTooManyRequests:
		out.Kind, out.After = provider.Busy, r.after
	case r.http >= 500 || r.http == http.StatusRequestTimeout || says && (class == events.Server || class == events.Timeout):
	case r.http >= 300 && r.http < 400, !says && (r.http == http.StatusNotFound || r.http == http.StatusMethodNotAllowed):
		// Whoever answers so is not the API.
		out = unreachable(fmt.Sprintf("the provider's address answers HTTP %d", r.http), r.broken)
	case r.http >= 400:
		out.Kind = provider.Refused
	case e == nil:
		out.Err = events.Error{Code: "unreadableAnswer", Message: "the provider's answer cannot be read", Class: events.Server}
	}
	return out
}
