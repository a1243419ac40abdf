package runware

import (
	"time"

	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// Payload is payload.
func Payload(call provider.Call) ([]byte, error) { return payload(call, time.Hour) }

// Created is what an answer of 200 with this body means.
func (p *Provider) Created(tasks []string, body []byte) (provider.Answer, error) {
	a, refusal := p.created(tasks, reply{Reply: inline.Reply{Body: body}, http: 200})
	if refusal != nil {
		return a, refusal
	}
	return a, nil
}
