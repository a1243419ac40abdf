package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events/natsd/natsdtest"
)

func TestNoPasswordIsTold(t *testing.T) {
	for raw, want := range map[string]string{
		"nats://localhost:4222":                 "nats://localhost:4222",
		"localhost:4222":                        "nats://localhost:4222",
		"nats://me:hush@a:4222":                 "nats://me:xxxxx@a:4222",
		"nats://me:hush@a:1,nats://me:hush@b:2": "nats://me:xxxxx@a:1,nats://me:xxxxx@b:2",
		"me:hush@a:1, me:hush@b:2":              "nats://me:xxxxx@a:1,nats://me:xxxxx@b:2",
		"nats://hush@a:4222":                    "nats://xxxxx@a:4222",
		"nats://me:hush@[::1:4222":              "the given URL",
		"nats://me:hu%zzsh@a":                   "the given URL",
	} {
		if got := redactURL(raw); got != want || strings.Contains(got, "hush") {
			t.Errorf("%s is told as %s, want %s", raw, got, want)
		}
	}
}

func TestNoPasswordIsInAnErrorOfConnecting(t *testing.T) {
	for _, raw := range []string{"nats://me:hush@[::1:4222", "nats://me:hush@127.0.0.1:1", "nats://me:hush@a:b,nats://me:hush@127.0.0.1:1", "nats://me:hu%zzsh@a"} {
		n, err := openNode(t.Context(), config{Data: t.TempDir(), NATSURL: raw}, wires{}, slog.New(slog.DiscardHandler))
		if err == nil {
			n.close()
			t.Fatalf("%s: opened", raw)
		}
		if text := err.Error(); strings.Contains(text, "hush") || strings.Contains(text, "zzsh") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// A server that is paused, or behind a network that drops everything, does not end a
// connection: it has to be asked.
func TestSilentServerIsGivenUp(t *testing.T) {
	if !long {
		t.Skip("SKIPPED: silence takes 15 s to be noticed: go test -tags long has it")
	}
	p := natsdtest.StartProcesses(t)
	link := p.Link()
	nc, err := connect(config{NATSURL: link.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	link.Silence()
	await(t, 30*time.Second, "the end of a silent connection", func() bool { return !nc.IsConnected() })
	link.Heal()
	await(t, 30*time.Second, "another connection", nc.IsConnected)
}
