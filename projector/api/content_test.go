package api_test

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector/api"
)

func TestContentIsServedInParts(t *testing.T) {
	w := newWorld(t)
	m := w.request(1)
	file := picture(0)
	art := w.succeed(m, 0) // open still: a file can be had as soon as the log names it
	path := events.ContentURL(art.ID)
	tag := `"sha256-` + art.SHA256 + `"`
	for name, c := range map[string]struct {
		headers []string
		code    int
		body    string
		ranged  string
	}{
		"Whole":          {nil, 200, string(file), ""},
		"First":          {[]string{"Range", "bytes=0-9"}, 206, string(file[:10]), "bytes 0-9/" + number(uint64(len(file)))},
		"Middle":         {[]string{"Range", "bytes=20-29"}, 206, string(file[20:30]), "bytes 20-29/" + number(uint64(len(file)))},
		"Suffix":         {[]string{"Range", "bytes=-5"}, 206, string(file[len(file)-5:]), "bytes " + number(uint64(len(file)-5)) + "-" + number(uint64(len(file)-1)) + "/" + number(uint64(len(file)))},
		"Held":           {[]string{"If-None-Match", tag}, 304, "", ""},
		"HeldWeakly":     {[]string{"If-None-Match", `"x", W/` + tag}, 304, "", ""},
		"NotHeld":        {[]string{"If-None-Match", `"sha256-0"`}, 200, string(file), ""},
		"RangeOfThis":    {[]string{"Range", "bytes=0-9", "If-Range", tag}, 206, string(file[:10]), "bytes 0-9/" + number(uint64(len(file)))},
		"RangeOfAnother": {[]string{"Range", "bytes=0-9", "If-Range", `"x"`}, 200, string(file), ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.get(path, c.headers...)
			if a.code != c.code || a.body != c.body || a.header.Get("Content-Range") != c.ranged {
				t.Errorf("answered %d with %d bytes, %q", a.code, len(a.body), a.header.Get("Content-Range"))
			}
			if a.header.Get("ETag") != tag || a.header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
				t.Errorf("headers %v", a.header)
			}
		})
	}
	for _, r := range []string{"bytes=100000-", "bytes=9-1", "pages=1"} {
		w.get(path, "Range", r).mustBe(t, 416, "range")
	}
	head := w.do(http.MethodHead, path, "")
	if head.code != 200 || head.body != "" || head.header.Get("Content-Length") != number(uint64(len(file))) || head.header.Get("ETag") != tag || head.header.Get("Content-Type") != "image/png" {
		t.Errorf("HEAD answered %d %v", head.code, head.header)
	}
}

// What a browser would run or render as a page never is shown in place, whatever
// the log says of it.
func TestContentIsHarmless(t *testing.T) {
	w := newWorld(t)
	for contentType, want := range map[string]string{
		"image/png": "inline", "image/webp": "inline", "video/mp4": "inline", "audio/mpeg": "inline",
		"image/svg+xml": "attachment", "text/html": "attachment", "text/html; charset=utf-8": "attachment",
		"application/pdf": "attachment", "application/octet-stream": "attachment", "model/gltf-binary": "attachment", "nonsense": "attachment",
	} {
		m := w.request(1)
		f, err := w.bucket.Keep(t.Context(), m.id, 0, bytes.NewReader(picture(1)), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		f.ContentType = contentType
		w.append(m, events.OutputSucceeded{Slot: 0, Artifact: events.Artifact{ID: events.ArtifactID(m.id, 0), File: f, CreatedAt: events.Now()}})
		a := w.get(events.ContentURL(events.ArtifactID(m.id, 0)))
		h := a.header
		if a.code != 200 || h.Get("Content-Type") != contentType || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Content-Security-Policy") != "sandbox; default-src 'none'" ||
			h.Get("Content-Disposition") != want+`; filename="`+string(m.id)+`-0.png"` {
			t.Errorf("%s: answered %d %v", contentType, a.code, h)
		}
	}
}

func TestFileThatIsNotTheRecordedOneIsNotServed(t *testing.T) {
	logged := &logs{}
	w := newWorld(t, func(c *api.Config) { c.Logger = logged.logger() })
	m := w.request(2)
	gone, other := w.succeed(m, 0), w.succeed(m, 1)
	if err := w.bucket.Delete(t.Context(), gone.BlobKey); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.dir+"/"+other.BlobKey, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, a := range []events.Artifact{gone, other} {
		got := w.get(events.ContentURL(a.ID))
		got.mustBe(t, 500, "internal")
		if strings.Contains(got.body, a.BlobKey) || !strings.Contains(logged.String(), a.ID) {
			t.Errorf("answered %s, logged %s", got.body, logged)
		}
	}
}

func TestFilesBehindAKeyAreNotCachedByOthers(t *testing.T) {
	const secret = "0123456789abcdef"
	keys, err := api.ParseKeys(strings.NewReader("a " + secret))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *api.Config) { c.Keys = keys })
	art := w.succeed(w.request(1), 0)
	a := w.get(events.ContentURL(art.ID), "Authorization", "Bearer "+secret)
	if a.code != 200 || a.header.Get("Cache-Control") != "private, max-age=31536000, immutable" {
		t.Errorf("answered %d %v", a.code, a.header)
	}
	w.get(events.ContentURL(events.ArtifactID(streamtest.NewID(), 0))).mustBe(t, 401, "unauthorized")
}
