package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Reads is one run of readers: each client asks for one of the paths, by chance, and
// when it has the whole answer for the next.
type Reads struct {
	API     string        `json:"api"` // base URL
	Clients int           `json:"clients"`
	Paths   []string      `json:"paths"`
	For     time.Duration `json:"for"`
}

// Read drives the server. Result.Generations counts the answers. An answer that
// is not 200 ends it with an error.
func Read(ctx context.Context, cfg Reads) (Result, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Clients, DisableCompression: true}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	took := make([][]time.Duration, cfg.Clients)
	errs := make([]error, cfg.Clients)
	start := time.Now()
	for i := range took {
		all.Go(func() {
			for time.Since(start) < cfg.For && errs[i] == nil {
				from := time.Now()
				errs[i] = get(ctx, client, cfg.API+cfg.Paths[rand.IntN(len(cfg.Paths))])
				took[i] = append(took[i], time.Since(from))
			}
		})
	}
	all.Wait()
	r := Result{Seconds: time.Since(start).Seconds()}
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("read from %s: %w", cfg.API, err)
	}
	r.ranks(slices.Concat(took...))
	return r, nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New("GET " + req.URL.RequestURI() + ": " + res.Status)
	}
	return nil
}
