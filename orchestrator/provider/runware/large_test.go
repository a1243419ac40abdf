package runware_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// Of answers with large files 8 come at a time, and are held until the caller is
// done with them. The others wait half read, and small ones do not wait at all.
func TestLargeAnswersComeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, calls = 8, 20
		var under, most atomic.Int32 // answers that have come beyond what needs no place
		file := "iVBORw0K" + strings.Repeat("AAAA", 100<<10)
		finish := make(chan struct{})
		small := make(chan struct{})
		p := against(t, func(w http.ResponseWriter, r *http.Request) {
			asked, _ := io.ReadAll(r.Body)
			if strings.Contains(string(asked), "small") {
				io.WriteString(w, fill(`{"data":[{"taskUUID":"<A>"},{"taskUUID":"<B>"}]}`))
				return
			}
			if strings.Contains(string(asked), "getTaskDetails") { // the second answer of one question is large as well
				fmt.Fprint(w, fill(`{"data":[{"taskType":"getTaskDetails","taskUUID":"<B>","response":{"data":[{"taskUUID":"<B>","imageBase64Data":"`)+file+`"}]}}]}`)
				return
			}
			doubt := `{"errors":[{"code":"taskFailedOrNotFound","taskUUID":"<B>"}],`
			fmt.Fprint(w, fill(doubt+`"data":[{"taskUUID":"<A>","imageBase64Data":"`)+file[:300<<10])
			if n := under.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-finish
			under.Add(-1)
			io.WriteString(w, file[300<<10:]+`"}]}`)
		})
		ask := func(n int) (provider.Answer, error) {
			if n%2 == 0 {
				return p.Create(t.Context(), call(`{"outputType":"base64Data"}`))
			}
			return p.Look(t.Context(), []string{a, b})
		}
		var asking sync.WaitGroup
		held := make(chan provider.Answer, calls)
		for n := range calls {
			asking.Go(func() {
				answer, err := ask(n)
				if err != nil || len(answer.Results) == 0 || answer.Results[0].Inline == 0 {
					t.Errorf("call %d: %+v, %v", n, answer.Results, err)
				}
				held <- answer
			})
		}
		synctest.Wait()
		if n := under.Load(); n != places {
			t.Errorf("%d large answers came at once, want %d", n, places)
		}
		go func() {
			if _, err := p.Create(t.Context(), call(`{"positivePrompt":"small"}`)); err != nil {
				t.Error(err)
			}
			close(small)
		}()
		synctest.Wait()
		select {
		case <-small:
		default:
			t.Error("a small answer waits for large ones")
		}
		close(finish)
		synctest.Wait()
		if n := len(held); n != places {
			t.Errorf("%d answers were given out before one was closed, want %d", n, places)
		}
		for range calls {
			answer := <-held
			if err := answer.Reply.Close(); err != nil {
				t.Error(err)
			}
			_ = answer.Reply.Close() // it gives the place back once
		}
		asking.Wait()
		if n := most.Load(); n > places {
			t.Errorf("%d large answers came at once, want %d at most", n, places)
		}
		// Nobody holds a place any more.
		for range places {
			answer, err := p.Look(t.Context(), []string{a, b})
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Reply.Close()
		}
	})
}

// An answer that is small on the wire and has no end once it is inflated is cut
// off at the limit of any other, and costs no more memory.
func TestCompressedBombIsCutAtTheLimit(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("asked for %q: nothing is inflated, and this shows nothing", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		fmt.Fprint(z, fill(`{"data":[{"taskUUID":"<A>","imageBase64Data":"iVBORw0K`))
		for chunk := strings.Repeat("AAAA", 1<<16); sent.Load() < 1<<30; sent.Add(int64(len(chunk))) {
			if _, err := io.WriteString(z, chunk); err != nil || r.Context().Err() != nil {
				return
			}
		}
		z.Close()
	}))
	defer server.Close()
	var before, after runtime.MemStats
	p := runware.New(runware.Config{BaseURL: server.URL, Key: "k", SpoolDir: t.TempDir()})
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err := p.Create(t.Context(), call(`{"outputType":"base64Data"}`))
	runtime.ReadMemStats(&after)
	if e := provider.AsError(err); err == nil || e.Kind != provider.Ambiguous {
		t.Errorf("%v, want an answer that does not tell", err)
	}
	server.CloseClientConnections()
	if n := sent.Load(); n >= 1<<30 {
		t.Errorf("%d MiB were read", n>>20)
	}
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 16<<20 {
		t.Errorf("%d MiB of heap", grown>>20)
	}
}
