package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Bounds of one input file that is given by its address.
const (
	maxInput     = 64 << 20 // bytes
	inputTimeout = 10 * time.Second
)

// givenFiles are the strings of a request that stand for files, data: URIs and
// addresses, in the order of its text. The request is JSON.
func givenFiles(raw json.RawMessage) []string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var found []string
	given(d, "", &found)
	return found
}

// given looks through one value; key is the one that it stands under.
func given(d *json.Decoder, key string, found *[]string) {
	t, err := d.Token()
	if err != nil {
		return
	}
	switch t := t.(type) {
	case string:
		switch key {
		case "positivePrompt", "negativePrompt", "webhookURL", "uploadEndpoint":
			return
		}
		if isData(t) || strings.HasPrefix(t, "https://") || strings.HasPrefix(t, "http://") {
			*found = append(*found, t)
		}
	case json.Delim:
		for d.More() {
			inner := key
			if t == '{' {
				k, err := d.Token()
				if err != nil {
					return
				}
				inner, _ = k.(string)
			}
			given(d, inner, found)
		}
		_, _ = d.Token() // the end
	}
}

func isData(s string) bool {
	head, _, comma := strings.Cut(s, ",")
	return comma && strings.HasPrefix(head, "data:") && strings.HasSuffix(head, ";base64")
}

// hashes are the SHA-256 of files, in lower-case hex.
func (s *Server) hashes(ctx context.Context, files []string) ([]string, error) {
	var out []string
	for _, f := range files {
		h := sha256.New()
		var err error
		switch {
		case isData(f):
			_, data, _ := strings.Cut(f, ",")
			_, err = io.Copy(h, base64.NewDecoder(base64.StdEncoding, strings.NewReader(data)))
		case s.cfg.Inputs == nil:
			_, err = io.WriteString(h, f)
		default:
			err = s.download(ctx, f, h)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, hex.EncodeToString(h.Sum(nil)))
	}
	return out, nil
}

func (s *Server) download(ctx context.Context, address string, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, inputTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := s.cfg.Inputs.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("input file: HTTP %d", res.StatusCode)
	}
	n, err := io.Copy(to, io.LimitReader(res.Body, maxInput+1))
	if err == nil && n > maxInput {
		err = errors.New("input file: too large")
	}
	return err
}

// mark draws the hash of each input file as a row of 32 blocks, a byte each, from
// the bottom up: at most eight of them, half of the picture.
func mark(pix []uint8, w, h int, inputs []string) {
	band := max(h/16, 2)
	for n, hash := range inputs[:min(len(inputs), 8)] {
		sum, err := hex.DecodeString(hash)
		if err != nil || len(sum) == 0 {
			continue
		}
		from := h - (n+1)*band
		for y := max(from, 0); y < from+band; y++ {
			for x := range w {
				pix[y*w+x] = sum[x*len(sum)/w]
				if y == from { // a dark line above
					pix[y*w+x] = 0
				}
			}
		}
	}
}
