package main

import (
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
