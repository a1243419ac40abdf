package natsdtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	publish, subscribe = "publish", "subscribe"
	yes, no            = true, false
	anID               = "01936f0e-8a51-7c3e-9d4b-2f6a7b8c9d0e"
)

// users says who may do what. It holds for the embedded listener and for the
// configuration that docker-compose.yml ships.
func users() []struct {
	user, verb, subject string
	may                 bool
} {
	return []struct {
		user, verb, subject string
		may                 bool
	}{
		{"requester", publish, "genstream.submit", yes},
		{"requester", publish, "genstream.generations.create", yes},
		{"requester", publish, "genstream.generations.get", yes},
		{"requester", publish, "genstream.what.comes.later", yes},
		{"requester", publish, "genstream.completed." + anID, no},
		{"requester", publish, "genstream", no},
		{"requester", publish, "genstreams.submit", no},
		{"requester", publish, "Genstream.submit", no},
		{"requester", publish, "gen." + anID, no},
		{"requester", publish, "gen.x", no},
		{"requester", publish, "gen.>", no},
		{"requester", publish, "gen.*", no},
		{"requester", publish, ">", no},
		{"requester", publish, "*.submit", no},
		{"requester", publish, "parked.commit", no},
		{"requester", publish, "horizon.orchestrator", no},
		{"requester", publish, "$JS.API.INFO", no},
		{"requester", publish, "$JS.API.STREAM.INFO.GENERATIONS", no},
		{"requester", publish, "$JS.API.STREAM.DELETE.GENERATIONS", no},
		{"requester", publish, "$JS.API.STREAM.PURGE.REQUESTS", no},
		{"requester", publish, "$JS.API.STREAM.MSG.GET.GENERATIONS", no},
		{"requester", publish, "$JS.API.DIRECT.GET.GENERATIONS", no},
		{"requester", publish, "$JS.API.CONSUMER.CREATE.GENERATIONS", no},
		{"requester", publish, "$JS.ACK.GENERATIONS.orchestrator.1.1.1.1.1", no},
		{"requester", publish, "$JS.FC.GENERATIONS.x", no},
		{"requester", publish, "$SYS.REQ.SERVER.PING", no},
		{"requester", publish, "$SRV.PING", no},
		{"requester", publish, "_INBOX.of.somebody", no},
		{"requester", publish, "_GENBOX.ours", no},
		{"requester", subscribe, "_INBOX.mine", yes},
		{"requester", subscribe, "_INBOX.mine.*", yes},
		{"requester", subscribe, "_INBOX.>", yes},
		{"requester", subscribe, "_INBOX", no},
		{"requester", subscribe, "gen.>", no},
		{"requester", subscribe, "gen." + anID, no},
		{"requester", subscribe, "genstream.>", no},
		{"requester", subscribe, "genstream.submit", no},
		{"requester", subscribe, "genstream.completed.>", no},
		{"requester", subscribe, "_GENBOX.>", no},
		{"requester", subscribe, "$JS.>", no},
		{"requester", subscribe, "$JS.EVENT.ADVISORY.>", no},
		{"requester", subscribe, "$SYS.>", no},
		{"requester", subscribe, "$SRV.>", no},
		{"requester", subscribe, ">", no},
		{"requester", subscribe, "*", no},
		{"requester", subscribe, "*.>", no},
		{"requester", subscribe, "*.mine", no},
		{"admin", publish, "genstream.submit", yes},
		{"admin", publish, "$JS.API.INFO", yes},
		{"admin", publish, "elsewhere", yes},
		{"admin", subscribe, "gen.>", yes},
		{"admin", subscribe, ">", yes},
	}
}

// CheckUsers asks the server at url, one connection for each row of a table of
// what the users admin and requester may publish and subscribe to.
func CheckUsers(t *testing.T, url string, passwords map[string]string) {
	for _, row := range users() {
		t.Run(fmt.Sprint(row.user, " ", row.verb, " ", row.subject), func(t *testing.T) {
			nc, err := nats.Connect(url, nats.UserInfo(row.user, passwords[row.user]), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if row.verb == publish {
				err = nc.Publish(row.subject, []byte("x"))
			} else {
				_, err = nc.SubscribeSync(row.subject)
			}
			if err == nil {
				err = nc.FlushTimeout(5 * time.Second) // the server has answered everything before
			}
			if err != nil {
				t.Fatal(err)
			}
			switch refused := nc.LastError(); {
			case row.may && refused != nil:
				t.Errorf("refused: %v", refused)
			case !row.may && !errors.Is(refused, nats.ErrPermissionViolation):
				t.Errorf("allowed: %v", refused)
			}
		})
	}
}
