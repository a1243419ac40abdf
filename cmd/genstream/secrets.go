package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/genstream/genstream/orchestrator/webhook"
)

// webhookKeysName is the file in the data directory, if no other is named.
const webhookKeysName = "webhook.keys"

// webhookKeys are the secrets of webhook tokens: a line each in hex, the first
// signs. They are made on first use; a line put in front rotates them.
//
// Behind a key that was made here stands a check, so that a disk that changes the
// file is noticed: all webhooks on their way would be refused in silence.
func webhookKeys(cfg config) (webhook.Keys, error) {
	read := func() (string, error) {
		return madeFile(filepath.Join(cfg.Data, webhookKeysName), func(key []byte) string {
			return hex.EncodeToString(key) + " " + checkOf(key)
		})
	}
	if cfg.WebhookKeys != "" {
		read = func() (string, error) {
			text, err := readSecret(cfg.WebhookKeys)
			return text + "\n", err
		}
	}
	text, err := read()
	if err != nil {
		return nil, err
	}
	var keys webhook.Keys
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		key, err := hex.DecodeString(words[0])
		if err != nil || len(key) < 16 {
			return nil, errors.New("webhook keys: each line must be 32 or more hex digits")
		}
		cut := len(words) == 1 && !strings.HasSuffix(line, "\n")
		if cut || len(words) > 2 || len(words) == 2 && words[1] != checkOf(key) {
			return nil, errors.New("webhook keys: the file is damaged: restore it, or remove it (then webhooks on their way are refused, and their results are asked for)")
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("webhook keys: the file is empty")
	}
	return keys, nil
}

func natsPasswords(cfg config) (admin, requester string, err error) {
	if cfg.NATSListen == "" {
		return "", "", nil
	}
	if admin, err = secretFile(filepath.Join(cfg.Data, "nats-admin.password")); err != nil {
		return "", "", err
	}
	requester, err = secretFile(filepath.Join(cfg.Data, "nats-requester.password"))
	return admin, requester, err
}

// checkOf tells a key from one that the disk has changed.
func checkOf(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// secretFile reads a secret, and makes it first if there is none.
func secretFile(path string) (string, error) {
	text, err := madeFile(path, hex.EncodeToString)
	return strings.TrimSpace(text), err
}

// madeFile reads a file of one line, and makes it of a random secret first if there is none.
func madeFile(path string, line func(secret []byte) string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return "", err
		}
		b = []byte(line(secret) + "\n")
		err = writeSynced(path, b)
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", filepath.Base(path), err)
	}
	return string(b), nil
}

// writeSynced writes a file that must be there after a power cut: webhooks on
// their way carry tokens that were made with it. It gets its name last: a cut
// finds it whole or not at all.
func writeSynced(path string, b []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
