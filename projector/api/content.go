package api

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

// shown are the types that a browser may show in place; none of them can hold a
// script. Everything else is a download.
var shown = []string{
	"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif",
	"video/mp4", "video/webm",
	"audio/mpeg", "audio/wav", "audio/ogg", "audio/flac", "audio/mp4", "audio/aac",
}

type contentInput struct {
	ID          string `path:"id"`
	Range       string `header:"Range" doc:"a part of the file (RFC 9110)"`
	IfNoneMatch string `header:"If-None-Match" doc:"the ETag of a file that the client holds"`
}

func (a *api) registerContent() {
	register(a, operation{
		id: "content", method: http.MethodGet, path: "/v1/artifacts/{id}/content",
		summary:  "The file of an artifact",
		about:    "It never changes. HEAD answers from the log alone. Files of an open generation can be had as soon as its events name them.",
		answers:  fileAnswers(),
		problems: []kind{notFound, noRange, invalid, unavailable},
	}, a.content)
}

// fileAnswers are the answers of a route that serves a file.
func fileAnswers() map[int]answer {
	headers := map[string]string{
		"ETag":                "sha256- and the SHA-256 of the file",
		"Content-Disposition": "inline for pictures, video and sound, else attachment",
	}
	file := map[string]reflect.Type{"*/*": nil}
	return map[int]answer{
		http.StatusOK:             {about: "The whole file", content: file, headers: headers},
		http.StatusPartialContent: {about: "The range", content: file, headers: headers},
		http.StatusNotModified:    {about: "The client holds this file already"},
	}
}

// content serves from the log, not from the catalog: there are size and hash,
// and the artifact's ID says where.
func (a *api) content(ctx context.Context, in *contentInput) (*reply, error) {
	id, slot, err := events.ParseArtifactID(in.ID)
	if err != nil {
		return nil, invalid.at("path.id", "must be an artifact's ID: a generation's ID, a dash and the slot")
	}
	g, _, err := a.cfg.Log.PeekAt(ctx, id, a.completed(ctx, id))
	if err != nil {
		return nil, err
	}
	if slot >= len(g.Outputs) || g.Outputs[slot].Artifact == nil {
		return nil, notFound.because("no artifact has this ID")
	}
	file := *g.Outputs[slot].Artifact
	headers := a.fileHeaders(file.File, file.ID+strings.ToLower(path.Ext(file.BlobKey)))
	if matches(in.IfNoneMatch, fileTag(file.File)) {
		return emptyReply(http.StatusNotModified, headers[:len(headers)-4]...)
	}
	if x, ok := ctx.Value(exchangeKey{}).(exchange); ok && x.r.Method == http.MethodHead {
		return emptyReply(http.StatusOK, append(headers, "Accept-Ranges", "bytes", "Content-Length", strconv.FormatInt(file.Size, 10))...)
	}
	f, err := a.cfg.Bucket.Read(ctx, file.BlobKey)
	if err != nil {
		return nil, fmt.Errorf("read artifact %s: %w", file.ID, err)
	}
	if f.Size() != file.Size {
		_ = f.Close()
		return nil, fmt.Errorf("read artifact %s: the file has %d bytes, the log says %d", file.ID, f.Size(), file.Size)
	}
	return fileReply(ctx, f, headers), nil
}

// fileReply serves a file, or the range of it that is asked for.
func fileReply(ctx context.Context, f *blob.Reader, headers []string) *reply {
	return &reply{Body: func(hc huma.Context) {
		defer f.Close()
		r, w := humago.Unwrap(hc)
		// A file of any size may take any time, as long as the client reads.
		lasting(ctx, time.Hour)
		set(w.Header(), headers)
		http.ServeContent(rangeless{w}, r, "", time.Time{}, f)
	}}
}

func fileTag(file events.File) string { return `"sha256-` + file.SHA256 + `"` }

// fileHeaders are the headers of a file, with the name under which it is saved;
// the last two pairs are about its body.
func (a *api) fileHeaders(file events.File, name string) []string {
	caching := "public, max-age=31536000, immutable"
	if a.keys != nil {
		caching = "private, max-age=31536000, immutable" // a shared cache asks nobody for a key
	}
	disposition := "attachment"
	contentType, _, err := mime.ParseMediaType(file.ContentType)
	if err == nil && slices.Contains(shown, contentType) {
		disposition = "inline"
	}
	return []string{
		"ETag", fileTag(file),
		"Cache-Control", caching,
		"Content-Security-Policy", filePolicy,
		"Content-Type", file.ContentType,
		"Content-Disposition", disposition + `; filename="` + name + `"`,
	}
}

// rangeless turns the plain-text answer of http.ServeContent for a range that the
// file does not have into a problem.
type rangeless struct{ http.ResponseWriter }

func (w rangeless) WriteHeader(code int) {
	if code != http.StatusRequestedRangeNotSatisfiable {
		w.ResponseWriter.WriteHeader(code)
		return
	}
	w.Header().Del("Content-Disposition")
	w.Header().Set("Cache-Control", "no-store") // http.ServeContent has taken the file's away
	noRange.because("the file is shorter, or the header is malformed").write(w.ResponseWriter)
}

func (w rangeless) Write(b []byte) (int, error) {
	if w.Header().Get("Content-Type") == "application/problem+json" {
		return len(b), nil // the text that the problem stands for
	}
	return w.ResponseWriter.Write(b)
}
