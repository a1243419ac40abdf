// Package instant is a provider for measuring: it speaks the part of Runware's
// wire format that a generation needs, answers at once, and costs as little as a
// provider can, so that it is not what is measured.
//
// # Usage
//
//	p := instant.New()
//	go http.Serve(listener, p)
//
// A create call (POST of an array of tasks) is answered with an acknowledgement of
// each task, and each task gets one webhook: with the output inline as base64 if it
// asked for outputType base64Data, else with the URL of a file that the provider
// serves. Every output is the same PNG of exactly 8 KiB. A webhook that is not
// answered 2xx is sent again, as Runware does it, until [Provider.Close].
//
// # Holding back
//
// [Provider.Hold] keeps the webhooks of tasks that come from then on, and
// [Provider.Release] sends them: that is how many generations are brought in flight.
//
// # What it does not do
//
// It has no faults, keeps no journal and checks no key. What shows behaviour, and
// not speed, is orchestrator/provider/sim.
package instant

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Provider is an http.Handler. Its methods may be called concurrently.
type Provider struct {
	client *http.Client
	file   []byte
	inline []byte // file in base64

	ctx    context.Context // of the webhooks
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows, and adding to sending
	holding  bool
	held     []webhook
	sending  sync.WaitGroup
	answered atomic.Int64
	refused  atomic.Int64
	missed   atomic.Int64
}

// webhook is one that is to be sent.
type webhook struct {
	url  string
	body []byte
}

// New makes a provider that sends webhooks at once.
func New() *Provider {
	p := &Provider{file: picture(), client: &http.Client{
		Transport: &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 1024, DisableCompression: true},
		Timeout:   30 * time.Second,
	}}
	p.inline = base64.StdEncoding.AppendEncode(nil, p.file)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close gives up the webhooks that were not taken, and waits for those under way.
func (p *Provider) Close() {
	p.cancel()
	p.sending.Wait()
	p.client.CloseIdleConnections()
}

// Answered is how many webhooks were answered 2xx.
func (p *Provider) Answered() int64 { return p.answered.Load() }

// Refused is how many times a webhook was answered otherwise.
func (p *Provider) Refused() int64 { return p.refused.Load() }

// Missed is how many times a webhook met nobody.
func (p *Provider) Missed() int64 { return p.missed.Load() }

// Hold keeps the webhooks of all tasks that come from now on.
func (p *Provider) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding = true
}

// Held is how many webhooks are kept back.
func (p *Provider) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

// Release sends what was kept, at most so many at a time, and holds nothing more.
// It returns at once.
func (p *Provider) Release(atOnce int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := make(chan webhook, len(p.held))
	for _, w := range p.held {
		held <- w
	}
	close(held)
	p.held, p.holding = nil, false
	for range atOnce {
		p.sending.Go(func() {
			for w := range held {
				p.send(w)
			}
		})
	}
}

// task is what is read of a task.
type task struct {
	Type    string `json:"taskType"`
	ID      string `json:"taskUUID"`
	Output  string `json:"outputType"`
	Webhook string `json:"webhookURL"`
}

// ServeHTTP takes create calls, questions about tasks, and downloads.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(p.file)
		return
	}
	var tasks []task
	if err := json.NewDecoder(r.Body).Decode(&tasks); err != nil || len(tasks) == 0 {
		http.Error(w, `{"errors":[{"code":"invalidJSON","message":"not an array of tasks"}]}`, http.StatusBadRequest)
		return
	}
	var b bytes.Buffer
	b.WriteString(`{"data":[`)
	for i, t := range tasks {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"taskType":"` + t.Type + `","taskUUID":"` + t.ID + `"`)
		if t.Type == "getResponse" { // it was sent, or is being sent: a question finds no more
			b.WriteString(`,"status":"processing"`)
		}
		b.WriteByte('}')
	}
	b.WriteString(`]}`)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b.Bytes())
	for _, t := range tasks {
		if t.Webhook != "" {
			p.deliver(webhook{t.Webhook, p.finished(t, r.Host)})
		}
	}
}

// finished is the body of a task's webhook.
func (p *Provider) finished(t task, host string) []byte {
	b := make([]byte, 0, len(p.inline)+256)
	b = append(b, `{"data":[{"taskType":"`+t.Type+`","taskUUID":"`+t.ID+`","seed":4242,"cost":0.0013,`...)
	if t.Output == "base64Data" {
		b = append(append(append(b, `"imageBase64Data":"`...), p.inline...), '"')
	} else {
		b = append(b, `"imageURL":"http://`+host+`/files/`+t.ID+`.png"`...)
	}
	return append(b, `}]}`...)
}

func (p *Provider) deliver(w webhook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ctx.Err() != nil:
	case p.holding:
		p.held = append(p.held, w)
	default:
		p.sending.Go(func() { p.send(w) })
	}
}

// send posts a webhook until it is taken. Real providers wait longer in between:
// here the wait must be short beside a restart.
func (p *Provider) send(w webhook) {
	for p.ctx.Err() == nil {
		switch code, err := p.post(w); {
		case err != nil:
			p.missed.Add(1)
		case code/100 != 2:
			p.refused.Add(1)
		default:
			p.answered.Add(1)
			return
		}
		select {
		case <-p.ctx.Done():
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func (p *Provider) post(w webhook) (code int, err error) {
	req, err := http.NewRequestWithContext(p.ctx, http.MethodPost, w.url, bytes.NewReader(w.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}
