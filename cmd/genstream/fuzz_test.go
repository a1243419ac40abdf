package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// FuzzConfigFile: a file of settings is taken or refused, and what it makes of
// providers has names that are safe in addresses and metrics.
func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(`{"listen":"127.0.0.1:1","verbose":true,"host":"a,b","providers":[{"name":"sim","kind":"sim","concurrent":-1,"per_second":1e308}]}`))
	f.Add([]byte(`{"providers":[{"name":"../x","kind":"runware"}]}`))
	f.Add([]byte(`{"providers":{"name":"x"},"config":"x"}`))
	f.Add([]byte(`{"runware-key":"k","bucket":"","verbose":"\"true"}`))
	f.Add([]byte(`{"data":{"x":[1]},"nothing":null}`))
	f.Add([]byte(`null`))
	path := filepath.Join(f.TempDir(), "config.json")
	name := regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		var c config
		cmd := &cobra.Command{}
		serverFlags(cmd.Flags(), &c)
		if err := c.readFile(path, cmd.Flags()); err != nil {
			return
		}
		for _, p := range c.Providers {
			if p.KeyFile != "" {
				return // it would be read
			}
		}
		list, err := c.providers()
		if err != nil {
			return
		}
		for _, p := range list {
			if !name.MatchString(p.Name) || p.Kind != "runware" && p.Kind != "sim" {
				t.Errorf("provider %+v", p)
			}
		}
	})
}

// FuzzWebhookKeys: a file of secrets gives keys of 16 bytes or more, or an error
// that repeats none of it.
func FuzzWebhookKeys(f *testing.F) {
	f.Add([]byte(strings.Repeat("ab", 16) + "\n" + strings.Repeat("CD", 20)))
	f.Add([]byte("abcd\n"))
	f.Add([]byte(" \n\t"))
	path := filepath.Join(f.TempDir(), "keys")
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := webhookKeys(config{WebhookKeys: path})
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if len(k) < 16 {
				t.Errorf("a key of %d bytes", len(k))
			}
		}
		for word := range strings.FieldsSeq(string(file)) {
			if err != nil && len(word) > 20 && strings.Contains(err.Error(), word) {
				t.Errorf("%v repeats a key", err)
			}
		}
	})
}
