package stream

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
)

// incarnation is the metadata key of a stream's identity.
const incarnation = "gen_incarnation"

// headerRoom is for the headers of a commit; the longest is Gen-Seen.
const headerRoom = 8 << 10

// streams is the configuration of every stream that genstream creates.
func streams(replicas int) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: Name, Subjects: []string{pattern},
			Description: "commits of generations: the complete truth, one subject each",
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.LimitsPolicy,
			Discard:     jetstream.DiscardNew, // history is never dropped to make room
			MaxMsgs:     -1, MaxBytes: -1, MaxMsgsPerSubject: -1,
			MaxMsgSize:  events.MaxCommit + headerRoom,
			DenyDelete:  true,
			AllowRollup: false,
			AllowDirect: true, // reads only, see Peek
			Replicas:    replicas,
		},
		{
			Name: Requests, Subjects: []string{SubmitSubject},
			Description: "submissions that no orchestrator has taken yet",
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.WorkQueuePolicy,
			Discard:     jetstream.DiscardNew,
			MaxMsgs:     -1, MaxBytes: -1, MaxMsgsPerSubject: -1,
			MaxMsgSize: 1 << 20,
			Replicas:   replicas,
		},
		{
			Name: Parked, Subjects: []string{parkedSubject + ">"},
			Description: "what could not be processed, with the reason",
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.LimitsPolicy,
			Discard:     jetstream.DiscardOld,
			MaxMsgs:     100_000, MaxBytes: -1, MaxMsgsPerSubject: -1,
			MaxMsgSize: -1,
			Duplicates: 2 * time.Minute,
			Replicas:   replicas,
		},
		{
			Name: Checks, Subjects: []string{checkSubject + ">"},
			Description: "open generations that are due for a look, when several orchestrators run",
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.WorkQueuePolicy,
			Discard:     jetstream.DiscardOld, // a lost check comes again
			MaxMsgs:     1_000_000, MaxBytes: -1, MaxMsgsPerSubject: -1,
			MaxMsgSize: 1 << 10,
			Duplicates: 2 * time.Minute, // each process asks for the same look once
			Replicas:   replicas,
		},
		{
			Name: Horizon, Subjects: []string{horizonSubject + ">"},
			Description: "where a follower of open generations may start reading; older is always right",
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.LimitsPolicy,
			Discard:     jetstream.DiscardOld,
			MaxMsgs:     -1, MaxBytes: -1, MaxMsgsPerSubject: 1,
			MaxMsgSize: 1 << 10,
			Replicas:   replicas,
		},
	}
}

// drift refuses a stream whose configuration breaks a promise. What is merely
// different (replicas, description, placement) is the operator's business.
func drift(have, want jetstream.StreamConfig) error {
	for _, f := range []struct {
		field      string
		have, want any
	}{
		{"storage", have.Storage, want.Storage},
		{"retention", have.Retention, want.Retention},
		{"deny_delete", have.DenyDelete, want.DenyDelete},
		{"allow_rollup_hdrs", have.AllowRollup, want.AllowRollup},
		{"max_age", have.MaxAge, want.MaxAge},
		{"persist_mode", have.PersistMode, want.PersistMode}, // async acknowledges before it writes
		{"max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
		{"subjects", fmt.Sprint(have.Subjects), fmt.Sprint(want.Subjects)},
	} {
		if f.have != f.want {
			return fmt.Errorf("%w: stream %s: %s is %v, must be %v", ErrDrift, want.Name, f.field, f.have, f.want)
		}
	}
	if want.Name == Name && (have.MaxMsgs > 0 || have.MaxBytes > 0) && have.Discard != jetstream.DiscardNew {
		return fmt.Errorf("%w: stream %s: a limit with discard %v would drop history", ErrDrift, want.Name, have.Discard)
	}
	return nil
}
