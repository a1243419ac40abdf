package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/webhook"
)

// bulk is a picture of which one delivery is just below the 64 MiB that a body may have.
type bulk struct {
	begin, block string // base64 of its beginning, and of what is repeated after it
	repeats      int
	size         int64
	sha256       string
}

func newBulk() bulk {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3<<14)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	begin := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), noise[:3<<10-16]...)
	enc := base64.StdEncoding.EncodeToString
	b := bulk{begin: enc(begin), block: enc(noise)}
	b.repeats = (64<<20 - len(b.begin) - 1024) / len(b.block)
	b.size = int64(len(begin) + b.repeats*len(noise))
	h := sha256.New()
	h.Write(begin)
	for range b.repeats {
		h.Write(noise)
	}
	b.sha256 = hex.EncodeToString(h.Sum(nil))
	return b
}

// body is a delivery of the picture as one task's output, and its length.
func (b bulk) body(task string) (io.Reader, int64) {
	head := `{"data":[{"taskType":"imageInference","taskUUID":"` + task + `","status":"success","seed":1,"cost":0.001,"imageBase64Data":"`
	const tail = `"}]}`
	parts := []io.Reader{strings.NewReader(head), strings.NewReader(b.begin)}
	for range b.repeats {
		parts = append(parts, strings.NewReader(b.block))
	}
	return io.MultiReader(append(parts, strings.NewReader(tail))...), int64(len(head) + len(b.begin) + b.repeats*len(b.block) + len(tail))
}

// bulky is a provider that has each picture at once, and answers with it the
// create call or the question, whichever the prompt says; of others it says nothing.
type bulky struct {
	bulk
	mu    sync.Mutex
	polls map[string]bool // tasks that are answered when asked about: those of a call whose answer was lost, too
}

func (p *bulky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked []struct{ TaskType, TaskUUID, PositivePrompt string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked) != 1 {
		http.Error(w, "want one task", http.StatusBadRequest)
		return
	}
	task := asked[0].TaskUUID
	p.mu.Lock()
	if way := asked[0].PositivePrompt; way == events.FromPoll || way == events.FromCreate {
		p.polls[task] = true
	}
	whole := asked[0].PositivePrompt == events.FromCreate || asked[0].TaskType == "getResponse" && p.polls[task]
	p.mu.Unlock()
	if whole {
		b, _ := p.body(task)
		_, _ = io.Copy(w, b) // whoever does not read it asks again
		return
	}
	fmt.Fprintf(w, `{"data":[{"taskType":"imageInference","taskUUID":%q,"status":"processing"}]}`, task)
}

// Deliveries of 64 MiB come by each way, many at once. The program takes few at a
// time, refuses further webhooks with 503 and lets answers wait; its memory stays
// within the bound that docs/operations.md states; in the end it has them all.
func TestLargeDeliveriesAtOnceNeedLittleMemory(t *testing.T) {
	if race {
		t.Skip("SKIPPED: the race detector needs memory and time of its own: go test without -race has it")
	}
	const each = 12 // of each way
	provider := &bulky{bulk: newBulk(), polls: map[string]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: provider}
	go server.Serve(l)
	defer server.Close()
	k := newKilled(t)
	settings := fmt.Sprintf(`{"providers":[{"name":"sim","kind":"runware","url":"http://%s/v1","key":"k"}]}`, l.Addr())
	if err := os.WriteFile(k.args[len(k.args)-1], []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "webhook.keys")
	if err := os.WriteFile(keyFile, []byte(strings.Repeat("ab", 16)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := webhook.Keys{bytes.Repeat([]byte{0xab}, 16)}
	hooks := "http://" + k.args[6]
	k.args = append(k.args, "--webhook-keys", keyFile)
	k.start()
	defer func() { k.end(syscall.SIGTERM) }()
	before := k.memory("VmRSS")
	k.resetPeak()

	ids := map[events.ID]string{}
	for n := range 3 * each {
		id, way := streamtest.NewID(), []string{events.FromWebhook, events.FromPoll, events.FromCreate}[n%3]
		ids[id] = way
		body := fmt.Appendf(nil, `{"model":"runware:101@1","input":{"positivePrompt":%q,"width":64,"height":64,"outputType":"base64Data"}}`, way)
		if err := k.api.create(t.Context(), string(id), body); err != nil {
			t.Fatal(err)
		}
	}
	var refused atomic.Int32
	var sending sync.WaitGroup
	for id, way := range ids {
		if way == events.FromWebhook {
			sending.Go(func() { refused.Add(int32(send(t, keys.URL(hooks, "sim", id), provider, id))) })
		}
	}
	sending.Wait()
	for id, way := range ids {
		var g events.View
		await(t, 2*time.Minute, "the picture by "+way, func() bool {
			g = events.View{}
			return k.api.get(t.Context(), "/v1/generations/"+string(id), &g) == nil && !g.CompletedAt.IsZero()
		})
		if a := g.Outputs[0].Artifact; a == nil || a.SHA256 != provider.sha256 || a.Size != provider.size {
			t.Errorf("by %s: %+v %+v, want %d bytes, sha256 %s", way, a, g.Outputs[0].Error, provider.size, provider.sha256)
		}
	}
	peak := k.memory("VmHWM")
	t.Logf("%d deliveries of 64 MiB, %d webhooks told to come again; memory %d MiB before, %d MiB at the most", 3*each, refused.Load(), before>>20, peak>>20)
	if refused.Load() == 0 {
		t.Errorf("%d webhooks at once, and none was told to come again", each)
	}
	if peak > before+memoryBound {
		t.Errorf("%d MiB more than before, want at most %d", (peak-before)>>20, memoryBound>>20)
	}
}

// memoryBound is what large deliveries cost at the most, in bytes: see docs/operations.md.
const memoryBound = 160 << 20

// send sends a webhook until it is taken, and returns how often it was told to come again.
func send(t *testing.T, url string, p *bulky, id events.ID) (refused int) {
	for n := 0; t.Context().Err() == nil; n++ {
		body, length := p.body(events.TaskID(id, 0, 1))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
		if err != nil {
			t.Error(err)
			return
		}
		if n%2 == 0 {
			req.ContentLength = length // or else it does not say
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			drain(res.Body)
			switch res.StatusCode {
			case http.StatusNoContent:
				return refused
			case http.StatusServiceUnavailable:
				refused++
			default:
				t.Errorf("webhook answered %s", res.Status)
				return refused
			}
		} // else it was refused while we wrote
		<-time.After(100 * time.Millisecond)
	}
	return refused
}

// memory is a line of the program's /proc/…/status, in bytes.
func (k *killed) memory(line string) uint64 {
	k.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.cmd.Process.Pid))
	if err != nil {
		k.t.Skipf("SKIPPED: memory is read from /proc: %v", err)
	}
	var kib uint64
	_, after, _ := strings.Cut(string(b), line+":")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		k.t.Fatalf("read %s: %v", line, err)
	}
	return kib << 10
}

// resetPeak begins VmHWM anew (proc(5), clear_refs).
func (k *killed) resetPeak() {
	k.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", k.cmd.Process.Pid), []byte("5"), 0); err != nil {
		k.t.Fatal(err)
	}
}
