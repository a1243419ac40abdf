package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/stream"
)

// Clocks further apart than this are told: IDs carry the time, deadlines are
// decided by one machine's clock and kept by another's.
const (
	skewTold = time.Second
	skewBad  = time.Minute
)

// NATS looks at the server on the other side of nc, and at the log in it. It
// creates and changes nothing. started says that there was a log before, so that a
// missing one is damage.
func NATS(ctx context.Context, nc *nats.Conn, started, own bool) []Finding {
	rtt, err := nc.RTT()
	if err != nil {
		return []Finding{broken("NATS", "is the server up, and does nothing stand in between?", "connected, but it does not answer: %v", err)}
	}
	seen := fmt.Sprintf("server %s, version %s, answers in %s", nc.ConnectedServerName(), nc.ConnectedServerVersion(), short(rtt))
	if c := nc.ConnectedClusterName(); c != "" {
		seen += fmt.Sprintf(", cluster %s, %d addresses known", c, len(nc.Servers()))
	}
	return append([]Finding{ok("NATS", "%s", seen)}, log(ctx, nc, started, own)...)
}

// log looks at the streams.
func log(ctx context.Context, nc *nats.Conn, started, own bool) []Finding {
	l, err := stream.Open(ctx, nc, stream.Config{Own: own})
	switch {
	case errors.Is(err, stream.ErrMissing) && !started:
		return []Finding{warning("log", "the first start with the role orchestrator makes them", "the streams are not there yet")}
	case errors.Is(err, stream.ErrMissing):
		return []Finding{broken("log", "stop, and restore the NATS store from a backup: a new stream would hide the loss", "%v", err)}
	case errors.Is(err, stream.ErrDrift):
		return []Finding{broken("log", "set it back with `nats stream edit`; until then genstream does not start", "%v", err)}
	case errors.Is(err, nats.ErrNoResponders):
		return []Finding{broken("log", "start the servers with jetstream {…} in their configuration, and see that the account may use it", "JetStream does not answer")}
	case err != nil:
		return []Finding{broken("log", "see the server's log; on a cluster, are a majority of the nodes up?", "%v", err)}
	}
	asked := time.Now()
	a, err := l.About(ctx)
	if err != nil {
		return []Finding{broken("log", "on a cluster, are a majority of the nodes up?", "%v", err)}
	}
	f := []Finding{ok("log", "%d commits, %d MiB, configured as it must be", a.Commits, a.Bytes>>20)}
	if a.Clustered && a.Replicas < 3 {
		f[0] = warning("log", "`nats stream edit GENERATIONS --replicas 3`, and the other streams likewise", "%d commits, in %d replica on a cluster: one node's disk is all there is", a.Commits, a.Replicas)
	}
	if n, err := l.ParkedCount(ctx); err == nil && n > 0 {
		f = append(f, warning("parked", "`nats stream view PARKED` says why each of them is there", "%d messages could not be processed", n))
	}
	return append(f, Clock(a.Clock.Sub(asked), time.Since(asked)))
}

// Clock judges how far the server's clock is ahead, by an answer that took that long.
func Clock(ahead, took time.Duration) Finding {
	ahead -= took / 2
	off := max(ahead.Abs()-took, 0) // it cannot be told better
	const do = "have NTP or chrony set both machines' clocks"
	switch {
	case off > skewBad:
		return broken("clock", do, "the server's clock is %s off: deadlines end at the wrong time", short(ahead))
	case off > skewTold:
		return warning("clock", do, "the server's clock is %s off", short(ahead))
	}
	return ok("clock", "the server's clock agrees within %s", short(max(ahead.Abs(), took/2)))
}

// Sync asks each server, at its monitoring address, whether it syncs before it
// acknowledges: no client can see that.
func Sync(ctx context.Context, monitors []string) []Finding {
	const do = "jetstream { sync_interval: always } in the configuration of every server, then restart them one by one"
	if len(monitors) == 0 {
		return []Finding{warning("sync", "name the servers' monitoring addresses with --nats-monitor, or read their configuration: jetstream { sync_interval: always }",
			"whether the servers sync before they acknowledge cannot be seen by a client; by default they do not, and a power cut loses up to two minutes")}
	}
	var all []Finding
	for _, base := range monitors {
		v, err := varz(ctx, base)
		switch {
		case err != nil:
			all = append(all, broken("sync", "is this the address of the server's http port?", "%s: %v", base, err))
		case v.JetStream.Config == nil:
			all = append(all, broken("sync", "jetstream {…} in the server's configuration", "%s: server %s runs without JetStream", base, v.Name))
		case !v.JetStream.Config.Always:
			all = append(all, broken("sync", do, "%s: server %s acknowledges before it syncs (every %s)", base, v.Name, v.JetStream.Config.Interval))
		default:
			all = append(all, ok("sync", "%s: server %s syncs before it acknowledges", base, v.Name))
		}
	}
	return all
}

// monitored is the part of a server's /varz that matters here.
type monitored struct {
	Name      string `json:"server_name"`
	JetStream struct {
		Config *struct {
			Always   bool          `json:"sync_always"`
			Interval time.Duration `json:"sync_interval"`
		} `json:"config"`
	} `json:"jetstream"`
}

func varz(ctx context.Context, base string) (v monitored, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/varz", nil)
	if err != nil {
		return v, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return v, fmt.Errorf("it answers %s", res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&v); err != nil {
		return v, fmt.Errorf("its answer is not that of a NATS server: %w", err)
	}
	return v, nil
}

// Embedded is the finding about the server that genstream runs itself.
func Embedded() Finding {
	return ok("sync", "nothing leaves the embedded server's process before what it rests on is on disk")
}

// Unreachable is the finding about a server that could not be connected to. where
// must hold no password.
func Unreachable(where string, err error) Finding {
	do := "is it up, and is --nats-url its address?"
	if errors.Is(err, nats.ErrAuthorization) {
		do = "check the user and password in --nats-url, or the file of --nats-creds"
	}
	return broken("NATS", do, "%s: %v", where, err)
}
