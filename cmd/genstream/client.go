package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// client talks to the API of a running server. Its verbs know nothing but the
// contract, like any other program.
type client struct {
	base string
	key  string
	http *http.Client
}

// clientFlags declares the flags of every client verb.
func clientFlags(c *cobra.Command) {
	c.Flags().String("api", "http://127.0.0.1:8080", "base URL of the API")
	c.Flags().String("key-file", "", "file that holds the API key ("+envPrefix+"API_KEY holds it too)")
	c.GroupID = "client"
}

func newClient(cmd *cobra.Command) (*client, error) {
	c := &client{http: &http.Client{}}
	c.base, _ = cmd.Flags().GetString("api")
	if v, ok := os.LookupEnv(envName("api")); ok && !cmd.Flags().Changed("api") {
		c.base = v
	}
	c.base = strings.TrimRight(c.base, "/")
	c.key = os.Getenv(envPrefix + "API_KEY")
	if path, _ := cmd.Flags().GetString("key-file"); path != "" {
		key, err := readSecret(path)
		if err != nil {
			return nil, err
		}
		c.key = key
	}
	return c, nil
}

// problemError is an answer of application/problem+json.
type problemError struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
	code int
}

func (p *problemError) Error() string {
	text := p.Title
	for _, e := range p.Errors {
		text += ": " + e.Location + " " + e.Message
	}
	if len(p.Errors) == 0 && p.Detail != "" {
		text += ": " + p.Detail
	}
	return text
}

// do sends a request and returns the answer, whose body the caller closes. An
// answer that is not 2xx is a *problemError.
func (c *client) do(ctx context.Context, method, path string, body []byte, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		var dial *url.Error
		if errors.As(err, &dial) && ctx.Err() == nil {
			return nil, fmt.Errorf("no server answers at %s: start one with `genstream up`, or name another with --api (%w)", c.base, dial.Err)
		}
		return nil, err
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	p := &problemError{code: res.StatusCode}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(p); err != nil || p.Title == "" {
		p.Title = res.Status
	}
	return nil, p
}

// get decodes the JSON answer to a GET.
func (c *client) get(ctx context.Context, path string, into any) error {
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}

// logged is one event of a generation, as the API streams it.
type logged struct {
	ID       string    `json:"id"` // of the generation
	Sequence uint64    `json:"sequence"`
	Version  uint64    `json:"version"`
	At       time.Time `json:"at"`
	Type     string    `json:"type"`
	raw      []byte
}

// follow calls handle with each event of a server-sent stream. It comes back
// after a lost connection where it was, and returns when the stream ends by
// itself, handle fails, or ctx ends.
func (c *client) follow(ctx context.Context, path string, handle func(logged) error) error {
	last := ""
	for lost := 0; ; lost++ {
		header := []string{"Accept", "text/event-stream"}
		if last != "" {
			header = append(header, "Last-Event-ID", last)
		}
		res, err := c.do(ctx, http.MethodGet, path, nil, header...)
		if err == nil {
			err = readEvents(res.Body, &last, handle)
			res.Body.Close()
			lost = 0
		}
		var p *problemError
		var h handleError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &h):
			return h.error
		case errors.As(err, &p) && p.code < 500, lost >= 10:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(lost+1) * 200 * time.Millisecond):
		}
	}
}

// handleError is an error of follow's handle, which no reconnect mends.
type handleError struct{ error }

// readEvents reads a text/event-stream until it breaks off. The caller's handle
// knows when it has seen enough.
func readEvents(r io.Reader, last *string, handle func(logged) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var data []byte
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			*last = value
		case "data":
			data = append(data, value...)
		case "":
			if len(data) > 0 {
				e := logged{raw: bytes.Clone(data)}
				if err := json.Unmarshal(data, &e); err != nil {
					return fmt.Errorf("read event: %w", err)
				}
				if err := handle(e); err != nil {
					return handleError{err}
				}
			}
			data = data[:0]
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF // a server ends a stream only by going away
}

// dollars formats a cost for a person.
func dollars(cost json.Number) string {
	if cost == "" {
		return "-"
	}
	return "$" + string(cost)
}

// keyValue reads key=value: a value that is JSON other than a string is taken as
// such, anything else as text.
func keyValue(arg string) (string, json.RawMessage, error) {
	key, value, ok := strings.Cut(arg, "=")
	if !ok || key == "" {
		return "", nil, fmt.Errorf("%q is not key=value", arg)
	}
	if json.Valid([]byte(value)) {
		return key, json.RawMessage(value), nil
	}
	text, err := json.Marshal(value)
	return key, text, err
}
