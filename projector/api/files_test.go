package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/micro"

	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector/api"
)

func shaOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// files is what the bucket holds.
func (w *world) files() []string {
	w.t.Helper()
	var all []string
	for o, err := range w.bucket.List(w.t.Context(), "") {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, o.Key)
	}
	return all
}

func TestUploadIsKeptOnceAndServed(t *testing.T) {
	spool := t.TempDir()
	w := newWorld(t, func(c *api.Config) { c.Spool = spool })
	content := picture(1)
	sha := shaOf(content)
	for i, want := range []int{http.StatusCreated, http.StatusOK} {
		a := w.do(http.MethodPost, "/v1/files", string(content), "Content-Type", "text/html") // what it says is not believed
		if a.code != want || a.header.Get("Location") != "/v1/files/"+sha {
			t.Fatalf("upload %d answered %d %v %s", i+1, a.code, a.header, a.body)
		}
		if v := a.decode(t); v["file"] != "inputs/"+sha || v["content_type"] != "image/png" || v["size"] != float64(len(content)) || len(v) != 3 {
			t.Errorf("upload %d answered %s", i+1, a.body)
		}
		w.document().check(t, "upload", w.document().Components.Schemas["Uploaded"], a.decode(t))
	}
	if all := w.files(); len(all) != 1 || all[0] != "inputs/"+sha {
		t.Errorf("the bucket holds %v", all)
	}
	if left, err := os.ReadDir(spool); err != nil || len(left) != 0 {
		t.Errorf("the spool holds %v, %v", left, err)
	}

	a := w.get("/v1/files/" + sha)
	if a.code != 200 || a.body != string(content) || a.header.Get("Content-Type") != "image/png" || a.header.Get("ETag") != `"sha256-`+sha+`"` ||
		a.header.Get("Content-Security-Policy") != "sandbox; default-src 'none'" || a.header.Get("X-Content-Type-Options") != "nosniff" ||
		a.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || a.header.Get("Content-Disposition") != `inline; filename="`+sha+`"` {
		t.Errorf("answered %d %v, %d bytes", a.code, a.header, len(a.body))
	}
	if a := w.get("/v1/files/"+sha, "Range", "bytes=1-3"); a.code != 206 || a.body != "PNG" {
		t.Errorf("range: %d %q", a.code, a.body)
	}
	if a := w.get("/v1/files/"+sha, "If-None-Match", `"sha256-`+sha+`"`); a.code != 304 || a.body != "" {
		t.Errorf("the client has it: %d, %d bytes", a.code, len(a.body))
	}
	if a := w.do(http.MethodHead, "/v1/files/"+sha, ""); a.code != 200 || a.body != "" || a.header.Get("Content-Length") != number(uint64(len(content))) {
		t.Errorf("HEAD: %d %v", a.code, a.header)
	}
	w.get("/v1/files/"+sha, "Range", "bytes=99999-").mustBe(t, 416, "range")
	w.get("/v1/files/"+shaOf(nil)).mustBe(t, 404, "not-found")
	for _, bad := range []string{"x", strings.ToUpper(sha), sha + ".png", sha[1:], sha + "0", "..%2f" + sha[5:], "%00" + sha[1:]} {
		w.get("/v1/files/"+bad).mustBe(t, 422, "invalid")
	}
	w.do(http.MethodPut, "/v1/files/"+sha, "x").mustBe(t, 405, "method")
	w.do(http.MethodDelete, "/v1/files/"+sha, "").mustBe(t, 405, "method")
	w.get("/v1/files").mustBe(t, 405, "method")
}

func TestUploadThatIsNoMediaIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		body string
		code int
		kind string
	}{
		"Empty":       {"", 422, "invalid"},
		"JSON":        {`{"file":"x"}`, 415, "media-type"},
		"HTML":        {"<!doctype html><script>alert(1)</script>", 415, "media-type"},
		"SVG":         {`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`, 415, "media-type"},
		"PDF":         {"%PDF-1.7\n", 415, "media-type"},
		"ELF":         {"\x7fELF\x02\x01\x01", 415, "media-type"},
		"ZIP":         {"PK\x03\x04\x14\x00\x00\x00", 415, "media-type"},
		"Gzip":        {"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 415, "media-type"},
		"Form":        {"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.png\"\r\n\r\n" + string(picture(1)) + "\r\n--b--", 415, "media-type"},
		"PolyglotGIF": {"<script>/*GIF89a", 415, "media-type"},
		"Zeros":       {strings.Repeat("\x00", 5000), 415, "media-type"},
		"OverLimit":   {string(picture(1)) + strings.Repeat("\x00", 64<<20), 413, "too-large"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(http.MethodPost, "/v1/files", c.body, "Content-Type", "image/png", "X-Filename", "../../a.png")
			a.mustBe(t, c.code, c.kind)
			if strings.Contains(a.body, "alert") || strings.Contains(a.body, "a.png") {
				t.Errorf("answered with what was sent: %s", a.body)
			}
		})
	}
	if all := w.files(); len(all) != 0 {
		t.Errorf("the bucket holds %v", all)
	}
}

// raw sends bytes as they are, and reads what comes back.
func (w *world) raw(request string) string {
	w.t.Helper()
	u, err := url.Parse(w.server.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil && !errors.Is(err, net.ErrClosed) {
		w.t.Log(err) // it may be refused before all of it was sent
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestUploadThatLiesOrBreaksOffIsNotKept(t *testing.T) {
	w := newWorld(t)
	content := string(picture(1))
	head := "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
	for name, c := range map[string]struct{ request, want string }{
		"Shorter":    {head + "Content-Length: 100000\r\n\r\n" + content, "400"},
		"ChunkCut":   {head + "Transfer-Encoding: chunked\r\n\r\n1000\r\n" + content, "400"},
		"BadChunk":   {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + content, "400"},
		"Announced":  {head + "Content-Length: 67108865\r\n\r\n", "413"},
		"TwoLengths": {head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := w.raw(c.request)
			if first, _, _ := strings.Cut(answer, "\r\n"); !strings.Contains(first, " "+c.want+" ") {
				t.Errorf("answered %q, want %s", answer, c.want)
			}
		})
	}
	if all := w.files(); len(all) != 0 {
		t.Errorf("the bucket holds %v", all)
	}
}

func TestUploadNeedsRoomAndAKey(t *testing.T) {
	const secret = "0123456789abcdef"
	keys, err := api.ParseKeys(strings.NewReader("alice " + secret))
	if err != nil {
		t.Fatal(err)
	}
	var full error
	w := newWorld(t, func(c *api.Config) { c.Keys, c.Room = keys, func() error { return full } })
	content := string(picture(1))
	w.do(http.MethodPost, "/v1/files", content).mustBe(t, 401, "unauthorized")
	w.do(http.MethodPost, "/v1/files", content, "Authorization", "Bearer "+secret, "Sec-Fetch-Site", "cross-site").mustBe(t, 403, "cross-origin")
	full = errors.New("the disk is nearly full")
	w.do(http.MethodPost, "/v1/files", content, "Authorization", "Bearer "+secret).mustBe(t, 503, "no-room")
	full = nil
	if a := w.do(http.MethodPost, "/v1/files", content, "Authorization", "Bearer "+secret); a.code != 201 {
		t.Errorf("answered %d %s", a.code, a.body)
	}
	w.get("/v1/files/"+shaOf([]byte(content))).mustBe(t, 401, "unauthorized")
	if a := w.get("/v1/files/"+shaOf([]byte(content)), "Authorization", "Bearer "+secret); a.code != 200 || !strings.HasPrefix(a.header.Get("Cache-Control"), "private") {
		t.Errorf("answered %d %v", a.code, a.header)
	}
}

func TestRescueIsPassedOn(t *testing.T) {
	w := newWorld(t)
	s, err := micro.AddService(w.nats.Conn(), micro.Config{Name: "test", Version: "0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	old, id := streamtest.NewID(), streamtest.NewID()
	asked := make(chan []byte, 1)
	err = s.AddGroup("genstream.generations").AddEndpoint("rescue", micro.HandlerFunc(func(r micro.Request) {
		asked <- bytes.Clone(r.Data())
		_ = r.Respond([]byte(`{"id":"` + string(id) + `","position":9}`))
	}))
	if err != nil {
		t.Fatal(err)
	}
	a := w.do(http.MethodPost, "/v1/generations/"+string(old)+"/rescue", "")
	if a.code != http.StatusAccepted || a.header.Get("Location") != "/v1/generations/"+string(id) || a.body != `{"id":"`+string(id)+`","position":9}`+"\n" {
		t.Errorf("answered %d %v %s", a.code, a.header, a.body)
	}
	if got := string(<-asked); got != string(old) {
		t.Errorf("asked for %q", got)
	}
	w.do(http.MethodPost, "/v1/generations/nope/rescue", "").mustBe(t, 422, "invalid")
	w.get("/v1/generations/"+string(old)+"/rescue").mustBe(t, 405, "method")
}
