package providertest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/orchestrator/provider/providertest"
)

// send makes one request to a handler and reads the answer.
func send(ctx context.Context, method, body string, h http.HandlerFunc) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://x.test/a%2Fb?q=1", strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	resp, err := (&http.Client{Transport: providertest.Transport(h)}).Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func TestRequestsAndAnswersArriveWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, body, err := send(t.Context(), "POST", "hello", func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Seen", r.Method+" "+r.Host+" "+r.RequestURI)
			w.WriteHeader(http.StatusTeapot)
			io.WriteString(w, string(b)+" back")
		})
		if err != nil || resp.StatusCode != http.StatusTeapot || body != "hello back" {
			t.Errorf("%v %v %q", err, resp, body)
		}
		if got := resp.Header.Get("X-Seen"); got != "POST x.test /a%2Fb?q=1" {
			t.Errorf("the handler saw %s", got)
		}
		resp, body, err = send(t.Context(), "GET", "", func(http.ResponseWriter, *http.Request) {})
		if err != nil || resp.StatusCode != http.StatusOK || body != "" {
			t.Errorf("an empty answer: %v %v %q", err, resp, body)
		}
	})
}

func TestBodyThatIsCutIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, h := range map[string]http.HandlerFunc{
			"aborted": func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "some")
				panic(http.ErrAbortHandler)
			},
			"shorter than it said": func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "10")
				io.WriteString(w, "some")
			},
			"aborted at once": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		} {
			if _, _, err := send(t.Context(), "GET", "", h); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: error %v", name, err)
			}
		}
	})
}

func TestContextEndsTheCallAndTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which ends when the handlers have
		for name, h := range map[string]http.HandlerFunc{
			"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"inside the body": func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "some")
				<-r.Context().Done()
			},
			"a handler that does not look": func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "some")
				time.Sleep(time.Hour)
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			_, _, err := send(ctx, "GET", "", h)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%s: error %v after %v", name, err, time.Since(start))
			}
		}
		time.Sleep(2 * time.Hour) // of fake time: for the one that does not look
	})
}

func TestClosedBodyEndsTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x.test/", nil)
		resp, err := providertest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 100)); err != nil {
					ended <- r.Context().Err()
					return
				}
			}
		})).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := <-ended; err == nil {
			t.Error("the handler's context lives on")
		}
	})
}
