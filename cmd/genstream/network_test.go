package main

import (
	"log/slog"
	"strings"
	"testing"
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
