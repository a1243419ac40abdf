package floor

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"
)

// call asks the provider for all tasks of a generation.
func (f *Floor) call(g *generation, input map[string]json.RawMessage) {
	if err := f.post(g, input); err != nil {
		f.fail(fmt.Errorf("call provider for generation=%s: %w", g.row.ID, err))
	}
}

func (f *Floor) post(g *generation, input map[string]json.RawMessage) error {
	text := func(s string) json.RawMessage { return fmt.Appendf(nil, "%q", s) }
	input["taskType"], input["model"] = text("imageInference"), text(g.row.Model)
	input["numberResults"], input["deliveryMethod"] = json.RawMessage("1"), text("async")
	input["webhookURL"] = text(f.cfg.Hooks + "/" + g.row.ID + "/" + f.token(g.row.ID))
	var b bytes.Buffer
	for i, t := range g.tasks {
		input["taskUUID"] = text(t)
		one, err := json.Marshal(input)
		if err != nil {
			return err
		}
		b.WriteByte("[,"[min(i, 1)])
		b.Write(one)
	}
	b.WriteByte(']')
	res, err := f.calls.Post(f.cfg.Provider, "application/json", &b)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Data []struct {
			Task string `json:"taskUUID"`
		} `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil { // or the connection is not used again
		return err
	}
	if len(answer.Data) != len(g.tasks) {
		return fmt.Errorf("%d of %d tasks accepted", len(answer.Data), len(g.tasks))
	}
	return nil
}

// result is what a webhook says of a task.
type result struct {
	Task string
	URL  string
	File []byte
	Seed json.Number
	Cost int64 // billionths of a dollar
}

func readResults(r *http.Request) ([]result, error) {
	var in struct {
		Data []struct {
			Task   string      `json:"taskUUID"`
			Inline []byte      `json:"imageBase64Data"`
			URL    string      `json:"imageURL"`
			Seed   json.Number `json:"seed"`
			Cost   float64     `json:"cost"`
		} `json:"data"`
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, err
	}
	var all []result
	for _, d := range in.Data {
		if d.URL == "" && len(d.Inline) == 0 {
			return nil, errors.New("a result without an output")
		}
		all = append(all, result{Task: d.Task, URL: d.URL, File: d.Inline, Seed: d.Seed, Cost: int64(math.Round(d.Cost * 1e9))})
	}
	return all, nil
}

func (f *Floor) fetch(r *result) error {
	res, err := f.calls.Get(r.URL)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New("fetch output: " + res.Status)
	}
	r.File, err = io.ReadAll(res.Body)
	return err
}

// token makes a webhook's address one that only we can have given.
func (f *Floor) token(id string) string {
	mac := hmac.New(sha256.New, f.key)
	mac.Write([]byte(id))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// newID is a UUID of version 7 (in order of time) or 4 (random).
func newID(version byte) string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("floor: no randomness: " + err.Error()) // crypto/rand ends the process itself
	}
	if version == 7 {
		var ms [8]byte
		binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
		copy(b[:6], ms[2:])
	}
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
