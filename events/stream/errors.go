package stream

import "errors"

var (
	// ErrConflict is somebody else's commit that came first: reload, decide again.
	ErrConflict = errors.New("conflict: the generation has moved on")

	// ErrNotFound is an ID without commits, or a sequence without a message.
	ErrNotFound = errors.New("not found")

	// ErrUnavailable is a log that took no append within the time given: nothing
	// is known to be written, and trying again later is right. HTTP answers 503.
	ErrUnavailable = errors.New("the log is not available")

	// ErrFull is a log at its storage limit, or whose disk is full: nothing was
	// written. It takes appends again once there is room. HTTP answers 503.
	ErrFull = errors.New("the log is full")

	// ErrMissing is a stream that should be there and is not. It is never
	// created over data that others still point to.
	ErrMissing = errors.New("the stream is missing")

	// ErrDrift is a stream whose configuration breaks a promise of this package.
	ErrDrift = errors.New("the stream is configured differently")

	// ErrSync is a sync of the disk that failed. It is final: what was written may
	// be gone, and only a restart, which reads the log again, tells.
	ErrSync = errors.New("the disk could not be synced: restart once it is well")
)
