package blob_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/genstream/genstream/blob"
)

func box(brand string) string { return "\x00\x00\x00\x18ftyp" + brand + "\x00\x00\x02\x00isomiso2" }

func TestTypeComesFromContent(t *testing.T) {
	b := open(t, "mem://")
	jpeg := "\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"
	gif := "GIF89a"
	frames := strings.Repeat("\xff\xfb\x90\x00"+strings.Repeat("\x00", 413), 4) // 128 kbit/s, 44.1 kHz: 417 bytes each
	ebml := "\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84"
	for _, c := range []struct{ name, content, want, ext string }{
		{"png", string(png(100)), "image/png", ".png"},
		{"apng", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + strings.Repeat("\x00", 21) + "acTL", "image/png", ".png"},
		{"jpeg", jpeg, "image/jpeg", ".jpg"},
		{"webp", "RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp", ".webp"},
		{"gif", gif + "\x01\x00\x01\x00", "image/gif", ".gif"},
		{"avif", box("avif"), "image/avif", ".avif"},
		{"mp4 isom", box("isom"), "video/mp4", ".mp4"},
		{"mp4 mp42", box("mp42"), "video/mp4", ".mp4"},
		{"mp4 m4v", box("M4V "), "video/mp4", ".mp4"},
		{"mov", box("qt  "), "video/quicktime", ".mov"},
		{"webm", ebml + "webm\x42\x87\x81\x04", "video/webm", ".webm"},
		{"mp3 with a tag", "ID3\x04\x00\x00\x00\x00\x00\x7f", "audio/mpeg", ".mp3"},
		{"mp3", frames, "audio/mpeg", ".mp3"},
		{"wav", "RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav", ".wav"},
		{"ogg", "OggS\x00\x02" + strings.Repeat("\x00", 22) + "OpusHead\x01", "audio/ogg", ".ogg"},
		{"flac", "fLaC\x00\x00\x00\x22", "audio/flac", ".flac"},
		{"m4a", box("M4A "), "audio/mp4", ".m4a"},
		{"glb", "glTF\x02\x00\x00\x00\x64\x00\x00\x00", "model/gltf-binary", ".glb"},
		// Two things at once are what their beginning is.
		{"gif and script", gif + "/*\x00\x00*/=1;alert(1)//", "image/gif", ".gif"},
		{"png and page", string(png(100)) + "<script>alert(1)</script>", "image/png", ".png"},
		{"jpeg and page", jpeg + "<html><script>alert(1)</script>", "image/jpeg", ".jpg"},

		{"empty", "", "", ""},
		{"svg", `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`, "", ""},
		{"svg with prolog", `<?xml version="1.0"?><!-- x --><svg xmlns="http://www.w3.org/2000/svg"/>`, "", ""},
		{"html", "<!DOCTYPE html><html>", "", ""},
		{"html after a gap", strings.Repeat(" \n", 2000) + "<script>", "", ""},
		{"html with a picture in it", "<p>" + string(png(100)), "", ""},
		{"html with a sound in it", "<!doctype html><script>/*" + frames, "", ""},
		{"text with a sound in it", "alert(1)/*" + frames, "", ""},
		{"text", "404 page not found", "", ""},
		{"json", `{"error":"expired"}`, "", ""},
		{"xml", `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`, "", ""},
		{"script", "alert(1)", "", ""},
		{"gzip", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "", ""},
		{"zip", "PK\x03\x04\x14\x00", "", ""},
		{"pdf", "%PDF-1.7", "", ""},
		{"program", "\x7fELF\x02\x01\x01", "", ""},
		{"exe", "MZ\x90\x00", "", ""},
		{"wasm", "\x00asm\x01\x00\x00\x00", "", ""},
		{"flash", "CWS\x0a\x00\x00", "", ""},
		{"icon", "\x00\x00\x01\x00\x01\x00", "", ""},
		{"matroska", ebml + "matroska\x42\x87\x81\x04", "", ""},
		{"zeros", strings.Repeat("\x00", 100), "", ""},
		{"almost png", "\x89PNX\r\n\x1a\n", "", ""},
		{"png after a byte", " " + string(png(100)), "", ""},
		{"gltf as text", `{"asset":{"version":"2.0"},"scene":0}`, "", ""},
	} {
		file, err := b.Keep(t.Context(), anID, 0, bytes.NewReader([]byte(c.content)), mega)
		if c.want == "" {
			if !errors.Is(err, blob.ErrType) {
				t.Errorf("%s: kept as %q, %v; want ErrType", c.name, file.ContentType, err)
			}
			continue
		}
		if err != nil || file.ContentType != c.want || !strings.HasSuffix(file.BlobKey, c.ext) {
			t.Errorf("%s: kept as %q under %q, %v; want %q, %s", c.name, file.ContentType, file.BlobKey, err, c.want, c.ext)
		}
	}
}

// FuzzType: what is kept is of a type of the list, under a name that says so, and
// of none that a browser would take for a page, even one that guesses.
func FuzzType(f *testing.F) {
	for _, s := range []string{string(png(64)), "GIF89a/*\x00*/=1;alert(1)//", "\xff\xfb\x90\x00<html>", "ID3<script>", "<svg>", " \n<!DOCTYPE html>", box("isom"), box("avif"), "RIFF\x24\x00\x00\x00WAVEfmt ", "glTF\x02\x00\x00\x00", "\xef\xbb\xbf<html>", ""} {
		f.Add([]byte(s))
	}
	b := open(f, "mem://")
	types := map[string]string{
		"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "image/avif": "avif", "video/mp4": "mp4", "video/webm": "webm",
		"video/quicktime": "mov", "audio/mpeg": "mp3", "audio/wav": "wav", "audio/ogg": "ogg", "audio/flac": "flac", "audio/mp4": "m4a", "model/gltf-binary": "glb",
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(content), 1<<20)
		if err != nil {
			if !errors.Is(err, blob.ErrType) && !errors.Is(err, blob.ErrSize) {
				t.Fatal(err)
			}
			return
		}
		defer b.Delete(t.Context(), file.BlobKey)
		if ext, ok := types[file.ContentType]; !ok || !strings.HasSuffix(file.BlobKey, "."+ext) || file.Size != int64(len(content)) {
			t.Errorf("%q is kept as %+v", content, file)
		}
		if guess := http.DetectContentType(content); strings.HasPrefix(guess, "text/html") || strings.HasPrefix(guess, "text/xml") {
			t.Errorf("%q is kept as %s, and a browser would say %s", content, file.ContentType, guess)
		}
	})
}
