package stream

import (
	"context"
	"fmt"
	"time"
)

// About is what the stream's server says of the log.
type About struct {
	Replicas  int       // of the stream
	Clustered bool      // the servers are a cluster
	Commits   uint64    // messages
	Bytes     uint64    // on disk, of one replica
	Clock     time.Time // the server's, when it answered
}

// About asks for it. The error wraps ErrUnavailable.
func (l *Log) About(ctx context.Context) (About, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return About{}, fmt.Errorf("ask about log: %w: %w", ErrUnavailable, err)
	}
	l.gate.wrote(info.State.LastSeq)
	return About{
		Replicas: info.Config.Replicas, Clustered: l.nc.ConnectedClusterName() != "",
		Commits: info.State.Msgs, Bytes: info.State.Bytes, Clock: info.TimeStamp,
	}, nil
}
