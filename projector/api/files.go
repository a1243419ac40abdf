package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

const (
	// maxFile bounds an uploaded file, in bytes.
	maxFile = 64 << 20

	// maxUploads bounds the uploads at a time: each holds a file in the spool.
	maxUploads = 8

	// uploadTimeout bounds how long a file may take to arrive; none of its parts may
	// take longer than bodyTimeout.
	uploadTimeout = 5 * time.Minute
)

type fileInput struct {
	SHA256      string `path:"sha256" doc:"of the file, in lower-case hex"`
	Range       string `header:"Range" doc:"a part of the file (RFC 9110)"`
	IfNoneMatch string `header:"If-None-Match" doc:"the ETag of a file that the client holds"`
}

func (a *api) registerFiles() {
	body := map[string]reflect.Type{"application/json": reflect.TypeFor[uploaded]()}
	location := map[string]string{"Location": "where the file is read"}
	register(a, operation{
		id: "upload", method: http.MethodPost, path: "/v1/files", upload: true,
		summary: "Upload a file for inputs",
		about: "The body is the file itself: a picture, a video, a sound or a binary glTF scene, as its content says, of at most 64 MiB. " +
			`An input names it as {"$file":"inputs/<sha256>"} in the place of a string. The same file again is the same file. ` +
			"A file that no request names may be removed after a day.",
		answers: map[int]answer{
			http.StatusCreated: {about: "The file is kept, and on disk", content: body, headers: location},
			http.StatusOK:      {about: "It was there already", content: body, headers: location},
		},
		problems: []kind{malformed, slow, tooLarge, mediaType, busy, noRoom, unavailable, invalid},
	}, a.upload)
	register(a, operation{
		id: "file", method: http.MethodGet, path: "/v1/files/{sha256}",
		summary:  "A file that was uploaded for inputs",
		about:    "It never changes.",
		answers:  fileAnswers(),
		problems: []kind{notFound, noRange, invalid, unavailable},
	}, a.file)
}

func (a *api) upload(ctx context.Context, _ *struct{}) (*reply, error) {
	x, ok := ctx.Value(exchangeKey{}).(exchange)
	if !ok {
		panic("api: an upload that did not come through the guard")
	}
	if x.r.ContentLength > maxFile {
		return nil, tooLarge.at("body", "has at most "+strconv.Itoa(maxFile)+" bytes")
	}
	if a.cfg.Room != nil {
		if err := a.cfg.Room(); err != nil {
			return nil, noRoom.because(err.Error())
		}
	}
	select {
	case a.uploads <- struct{}{}:
		defer func() { <-a.uploads }()
	default:
		return nil, busy.because("too many files are being uploaded")
	}
	incoming := &arrival{r: x.r.Body, control: http.NewResponseController(x.w), until: time.Now().Add(uploadTimeout)}
	lasting(ctx, uploadTimeout)
	file, fresh, err := a.cfg.Bucket.KeepInput(ctx, incoming, maxFile, a.cfg.Spool)
	if err != nil {
		return nil, a.notKept(ctx, err, incoming.n)
	}
	lasting(ctx, 0)
	code := http.StatusOK
	if fresh {
		code = http.StatusCreated
	}
	return jsonReply(code, func(b *bytes.Buffer) error {
		return encode(b, uploaded{File: file.BlobKey, ContentType: file.ContentType, Size: file.Size})
	}, "Location", "/v1/files/"+file.SHA256)
}

// notKept is why an upload was not kept, after n bytes of it.
func (a *api) notKept(ctx context.Context, err error, n int64) error {
	switch {
	case errors.Is(err, blob.ErrBucket) && ctx.Err() == nil:
		a.log.Error("upload not kept", "error", err)
		return unavailable.because("the file could not be kept; send it again")
	case errors.Is(err, blob.ErrSize):
		return tooLarge.at("body", "has at most "+strconv.Itoa(maxFile)+" bytes")
	case errors.Is(err, blob.ErrType) && n == 0:
		return invalid.at("body", "is empty")
	case errors.Is(err, blob.ErrType):
		return mediaType.at("body", "is no picture, video, sound or binary glTF scene of a kind that is kept; the body must be the file itself")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return slow.because("the file took too long to arrive")
	}
	return malformed.at("body", "broke off") // whoever sent it hears of it only if he is still there
}

// arrival is a body on its way in: every part of it has its own deadline, and the
// whole of it has one.
type arrival struct {
	r       io.Reader
	control *http.ResponseController
	until   time.Time
	n       int64
}

func (u *arrival) Read(p []byte) (int, error) {
	now := time.Now()
	if now.After(u.until) {
		return 0, os.ErrDeadlineExceeded
	}
	_ = u.control.SetReadDeadline(now.Add(bodyTimeout)) // not supported: the connection has none
	n, err := u.r.Read(p)
	u.n += int64(n)
	return n, err
}

func (a *api) file(ctx context.Context, in *fileInput) (*reply, error) {
	if _, ok := events.ParseInputKey(events.InputKey(in.SHA256)); !ok {
		return nil, invalid.at("path.sha256", "must be 64 lower-case hex digits")
	}
	r, file, err := a.cfg.Bucket.OpenInput(ctx, in.SHA256)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return nil, notFound.because("no file has this hash")
	case err != nil:
		return nil, fmt.Errorf("read input file: %w", err)
	}
	headers := a.fileHeaders(file, file.SHA256)
	if matches(in.IfNoneMatch, fileTag(file)) {
		_ = r.Close() // nothing more is read of it
		return emptyReply(http.StatusNotModified, headers[:len(headers)-4]...)
	}
	return fileReply(ctx, r, headers), nil
}
