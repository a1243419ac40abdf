package orchestrator

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

const (
	// maxCarried bounds what the files of an input add to one create call as data:
	// URIs, in bytes. Each task of the call carries them all. What is over it needs a
	// bucket that signs addresses.
	maxCarried = 16 << 20

	// maxCarrying is how many create calls may hold files in memory at a time: each
	// has them a few times over while it is encoded.
	maxCarrying = 4

	// signedFor is how long a signed address lasts at least. A task may wait in the
	// provider's queue until the generation's deadline.
	signedFor = 10 * time.Minute
)

// filesOf is the files that an input names; one that is not named as it must be is a *Problem.
func filesOf(input json.RawMessage) ([]events.InputFile, error) {
	files, err := events.InputFiles(input)
	var wrong *events.InputError
	if errors.As(err, &wrong) {
		return nil, problem(ProblemInvalid, "body."+wrong.Path, wrong.Reason)
	}
	return files, err
}

// filesThere refuses an input that names a file which is not in the bucket, or
// more than can be sent: what is accepted can be sent.
func (o *Orchestrator) filesThere(ctx context.Context, r events.Requested) error {
	if r.Rescues != "" {
		return nil // it sends nothing
	}
	files, err := filesOf(r.Input)
	if err != nil || len(files) == 0 {
		return err
	}
	carried := int64(0)
	for _, f := range files {
		file, err := o.cfg.Bucket.Read(ctx, events.InputKey(f.SHA256))
		switch {
		case errors.Is(err, blob.ErrNotFound):
			return problem(ProblemInvalid, "body."+f.Path, "names a file that is not here: upload it first, with POST /v1/files")
		case err != nil:
			o.log.Warn("file of an input not looked up", "error", err)
			return problem(ProblemUnavailable, "", "the bucket does not answer; nothing was accepted")
		}
		carried += encodedSize(file.Size())
		_ = file.Close() // nothing was read of it
	}
	if carried*int64(r.ExpectedCount) <= maxCarried {
		return nil
	}
	_, err = o.cfg.Bucket.SignInput(ctx, files[0].SHA256, signedFor)
	switch {
	case errors.Is(err, blob.ErrUnsigned):
		return problem(ProblemInvalid, "body.input", fmt.Sprintf(
			"its files would add %d bytes to the call, for all outputs together; without a bucket that signs addresses it takes %d",
			carried*int64(r.ExpectedCount), maxCarried))
	case err != nil:
		o.log.Warn("address of an input's file not signed", "error", err)
		return problem(ProblemUnavailable, "", "the bucket does not answer; nothing was accepted")
	}
	return nil
}

// encodedSize is the length of n bytes in a data: URI.
func encodedSize(n int64) int64 { return int64(base64.StdEncoding.EncodedLen(int(n))) + 64 }

// carry puts the files that a call's input names into the form in which a provider
// takes them. The error says that nothing was sent. let is called when the call is over.
func (o *Orchestrator) carry(ctx context.Context, call *provider.Call) (let func(), unsent *provider.Error) {
	let = func() {}
	files, err := events.InputFiles(call.Input)
	if err != nil {
		return let, unsendable("a file of the input is not named as it must be", err)
	}
	if len(files) == 0 {
		return let, nil
	}
	select {
	case o.carrying <- struct{}{}:
		let = func() { <-o.carrying }
	case <-ctx.Done():
		return let, unreadable(ctx.Err())
	}
	carried := int64(0)
	for _, f := range files {
		file, err := o.cfg.Bucket.Read(ctx, events.InputKey(f.SHA256))
		if err != nil {
			return let, bucketFault(err)
		}
		carried += encodedSize(file.Size())
		_ = file.Close() // nothing was read of it
	}
	text := o.dataURI
	if carried*int64(len(call.Tasks)) > maxCarried {
		expiry := max(time.Until(call.Deadline), signedFor)
		text = func(ctx context.Context, sha256 string) (string, error) {
			return o.cfg.Bucket.SignInput(ctx, sha256, expiry)
		}
	}
	known := map[string]string{}
	input, err := events.ReplaceFiles(call.Input, func(sha256 string) (string, error) {
		if known[sha256] != "" {
			return known[sha256], nil
		}
		var err error
		known[sha256], err = text(ctx, sha256)
		return known[sha256], err
	})
	if err != nil {
		return let, bucketFault(err)
	}
	call.Input = input
	return let, nil
}

// errDamaged is a file whose content is not what its name promises.
var errDamaged = errors.New("the file is damaged")

// dataURI is a file of the bucket as RFC 2397 writes it.
func (o *Orchestrator) dataURI(ctx context.Context, hash string) (string, error) {
	r, file, err := o.cfg.Bucket.OpenInput(ctx, hash)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if encodedSize(file.Size) > maxCarried {
		return "", fmt.Errorf("read input %s: %w: it has %d bytes", hash, errDamaged, file.Size)
	}
	var text strings.Builder
	text.Grow(int(encodedSize(file.Size)))
	text.WriteString("data:" + file.ContentType + ";base64,")
	sum := sha256.New()
	enc := base64.NewEncoder(base64.StdEncoding, &text)
	if _, err := io.Copy(io.MultiWriter(sum, enc), r); err != nil {
		return "", err
	}
	if err := enc.Close(); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		return "", fmt.Errorf("read input %s: %w: its hash is %s", hash, errDamaged, got)
	}
	return text.String(), nil
}

// bucketFault sorts the reasons for which a file cannot be sent: those that may
// pass, and those that will not.
func bucketFault(err error) *provider.Error {
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return unsendable("a file that the input names is not in the bucket any more", err)
	case errors.Is(err, errDamaged), errors.Is(err, blob.ErrType):
		return unsendable("a file that the input names is damaged", err)
	case errors.Is(err, blob.ErrUnsigned):
		return unsendable("the input's files are too large for the call, and the bucket signs no addresses", err)
	}
	return unreadable(err)
}

func unsendable(message string, cause error) *provider.Error {
	return &provider.Error{Kind: provider.Refused, Cause: cause, Err: events.Error{
		Code: events.CodeInput, Message: message, Class: events.Validation,
	}}
}

func unreadable(cause error) *provider.Error {
	return &provider.Error{Kind: provider.Unreachable, Cause: cause, Err: events.Error{
		Code: "bucket", Message: "a file that the input names could not be read", Class: events.Connection,
	}}
}
