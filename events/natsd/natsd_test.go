package natsd_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

func start(t *testing.T, cfg natsd.Config) *natsd.Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := natsd.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func openLog(t *testing.T, s *natsd.Server, create bool) *stream.Log {
	t.Helper()
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: create})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendOne(t *testing.T, l *stream.Log) (events.ID, error) {
	t.Helper()
	id := events.ID(uuid.Must(uuid.NewV7()).String())
	_, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1))
	return id, err
}

func TestRestartKeepsTheLog(t *testing.T) {
	dir := t.TempDir()
	s := start(t, natsd.Config{Dir: dir})
	l := openLog(t, s, true)
	id, err := appendOne(t, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := s.Healthy(t.Context()); err == nil {
		t.Error("a server that is closed says that it is healthy")
	}

	again := openLog(t, start(t, natsd.Config{Dir: dir}), false) // false: a stream that is gone is an error
	if again.Fingerprint() != l.Fingerprint() {
		t.Errorf("fingerprint was %s and is %s", l.Fingerprint(), again.Fingerprint())
	}
	if g, _, err := again.Load(t.Context(), id); err != nil || !g.Requested() {
		t.Errorf("load: %+v, %v", g, err)
	}
}

func TestStoreAtItsLimitRefusesAndLosesNothing(t *testing.T) {
	s := start(t, natsd.Config{MaxStore: 1 << 20})
	l := openLog(t, s, true)
	var kept []events.ID
	for {
		id, err := appendOne(t, l)
		if err != nil {
			if !errors.Is(err, stream.ErrFull) {
				t.Fatalf("after %d commits: %v, want ErrFull", len(kept), err)
			}
			break
		}
		if kept = append(kept, id); len(kept) > 5000 {
			t.Fatal("the limit was never reached")
		}
	}
	if len(kept) < 100 {
		t.Errorf("only %d commits in 1 MiB", len(kept))
	}
	for _, id := range []events.ID{kept[0], kept[len(kept)-1]} {
		if _, _, err := l.Load(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestListenerNeedsPasswordsAndAnAddress(t *testing.T) {
	for name, cfg := range map[string]natsd.Config{
		"no passwords":          {Listen: "127.0.0.1:0"},
		"no admin password":     {Listen: "127.0.0.1:0", Requester: "r"},
		"no requester password": {Listen: "127.0.0.1:0", Admin: "a"},
		"no port":               {Listen: "127.0.0.1", Admin: "a", Requester: "r"},
		"port no number":        {Listen: "127.0.0.1:nats", Admin: "a", Requester: "r"},
	} {
		cfg.Dir = t.TempDir()
		if s, err := natsd.Start(cfg); err == nil {
			s.Close()
			t.Errorf("%s: started", name)
		}
	}
}

// listening is the inodes of this process's listening TCP sockets.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		body, err := os.ReadFile(table)
		if err != nil {
			t.Skip("no /proc to see the sockets in")
		}
		for line := range strings.Lines(string(body)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc to see the sockets in")
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && inodes[target] {
			own[target] = true
		}
	}
	return own
}

func TestNothingListensUnlessAskedFor(t *testing.T) {
	before := listening(t)
	s := start(t, natsd.Config{})
	for socket := range listening(t) {
		if !before[socket] {
			t.Errorf("%s listens", socket)
		}
	}
	if s.URL() != "" {
		t.Errorf("URL is %s", s.URL())
	}
	loud := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	if n := len(listening(t)) - len(before); n != 1 || !strings.HasPrefix(loud.URL(), "nats://127.0.0.1:") {
		t.Errorf("%d sockets listen for a listener at %q", n, loud.URL())
	}
}

func TestWhoHasNoPasswordIsRefused(t *testing.T) {
	s := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "admin-word", Requester: "requester-word"})
	for name, opts := range map[string][]nats.Option{
		"no user":                  nil,
		"wrong password":           {nats.UserInfo("requester", "x")},
		"empty password":           {nats.UserInfo("admin", "")},
		"the other one's password": {nats.UserInfo("admin", "requester-word")},
		"the in-process password":  {nats.UserInfo("admin", "in-process")},
		"unknown user":             {nats.UserInfo("genstream", "admin-word")},
		"a token":                  {nats.Token("admin-word")},
	} {
		nc, err := nats.Connect(s.URL(), opts...)
		if err == nil {
			nc.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v, want ErrAuthorization", name, err)
		}
	}
}

func TestUsersMayDoWhatTheTableSays(t *testing.T) {
	s := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	l := openLog(t, s, true)
	natsdtest.CheckUsers(t, s.URL(), map[string]string{"admin": "a", "requester": "r"})
	if commits, _, err := l.Size(t.Context()); commits != 0 || err != nil {
		t.Errorf("the log holds %d messages of the requester, %v", commits, err)
	}
}

// TestReplySubjectWritesNothingIntoTheLog: a request whose reply subject is a
// generation's would have whoever answers it append with his own rights.
func TestReplySubjectWritesNothingIntoTheLog(t *testing.T) {
	s := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	l := openLog(t, s, true)
	answer := func(subject string, may func(reply string) bool) {
		if _, err := s.Conn().Subscribe(subject, func(m *nats.Msg) {
			if may(m.Reply) {
				_ = m.Respond([]byte("answer"))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	answer("genstream.careful", stream.Answerable)
	if err := s.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.URL(), nats.UserInfo("requester", "r"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()

	stored := func(subject string) uint64 {
		t.Helper()
		id := uuid.Must(uuid.NewV7()).String()
		for _, reply := range []string{"gen." + id, "parked.commit", "horizon.x", "genstream.submit", "$JS.API.STREAM.DELETE.GENERATIONS", "x_INBOX.a", "_INBOXES.a", "_GENBOX"} {
			if err := nc.PublishRequest(subject, reply, nil); err != nil {
				t.Fatal(err)
			}
		}
		// The same responder answers this one last.
		if m, err := nc.Request(subject, nil, 5*time.Second); err != nil || string(m.Data) != "answer" {
			t.Fatalf("a request with an inbox is not answered: %v", err)
		}
		if err := s.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		commits, _, err := l.Size(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return commits
	}
	if n := stored("genstream.careful"); n != 0 {
		t.Errorf("%d messages are in the log", n)
	}
	if _, err := stream.Open(t.Context(), s.Conn(), stream.Config{}); err != nil {
		t.Errorf("a stream is gone: %v", err)
	}
	if _, _, err := l.Load(t.Context(), events.ID(uuid.Must(uuid.NewV7()).String())); !errors.Is(err, stream.ErrNotFound) {
		t.Error(err)
	}
}

// TestCarelessReplyIsStored is why the tests of reply subjects are worth having,
// and why requesters have an account of their own.
func TestCarelessReplyIsStored(t *testing.T) {
	for user, want := range map[string]uint64{"admin": 1, "requester": 0} {
		t.Run(user, func(t *testing.T) {
			s := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "pw", Requester: "pw"})
			l := openLog(t, s, true)
			if _, err := s.Conn().Subscribe("genstream.careless", func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
				t.Fatal(err)
			}
			if err := s.Conn().Flush(); err != nil {
				t.Fatal(err)
			}
			nc, err := nats.Connect(s.URL(), nats.UserInfo(user, "pw"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if err := nc.PublishRequest("genstream.careless", "gen."+uuid.NewString(), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Request("genstream.careless", nil, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			if commits, _, err := l.Size(t.Context()); commits != want || err != nil {
				t.Errorf("the log holds %d messages, %v; want %d", commits, err, want)
			}
		})
	}
}

// TestSubmissionsAcknowledgementIsNotStored: the server acknowledges a submission
// by itself, with all rights, and asks nobody whether it may.
func TestSubmissionsAcknowledgementIsNotStored(t *testing.T) {
	s := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	l := openLog(t, s, true)
	nc, err := nats.Connect(s.URL(), nats.UserInfo("requester", "r"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	before, err := l.Horizon(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, reply := range []string{"gen." + uuid.Must(uuid.NewV7()).String(), "parked.commit", "horizon.orchestrator", stream.SubmitSubject} {
		if err := nc.PublishRequest(stream.SubmitSubject, reply, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	m, err := nc.Request(stream.SubmitSubject, []byte("{}"), 5*time.Second)
	if err != nil || string(m.Data) != `{"stream":"REQUESTS","seq":5}` {
		t.Fatalf("a submission with an inbox is not acknowledged as the fifth: %v", err)
	}
	if commits, _, err := l.Size(t.Context()); commits != 0 || err != nil {
		t.Errorf("the log holds %d messages, %v", commits, err)
	}
	if n, err := l.ParkedCount(t.Context()); n != 0 || err != nil {
		t.Errorf("%d are parked, %v", n, err)
	}
	if at, err := l.Horizon(t.Context()); at != before || err != nil {
		t.Errorf("the horizon is %d, was %d, %v", at, before, err)
	}
}

func TestRepliesForGenstreamAreNotTheRequestersToRead(t *testing.T) {
	s := start(t, natsd.Config{Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	if inbox := s.Conn().NewInbox(); !strings.HasPrefix(inbox, stream.OwnInbox+".") || !stream.Answerable(inbox) {
		t.Errorf("own inbox is %s", inbox)
	}
	other, err := s.Connect(nats.UserInfo("admin", "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Subscribe("genstream.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.URL(), nats.UserInfo("requester", "r"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	spy, err := nc.SubscribeSync("_INBOX.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Conn().Request("genstream.echo", []byte("secret"), 5*time.Second); err != nil || string(m.Data) != "secret" {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil { // whatever was sent to the spy is here by now
		t.Fatal(err)
	}
	if n, _, _ := spy.Pending(); n != 0 {
		t.Errorf("the requester reads %d replies that are not for him", n)
	}
}
