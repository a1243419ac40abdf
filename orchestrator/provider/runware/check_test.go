package runware_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

func TestCheckNamesTheField(t *testing.T) {
	file := base64.StdEncoding.EncodeToString(make([]byte, 4000))
	prompt := strings.Repeat("a red fox, ", 800)
	for _, c := range []struct {
		model, input string
		count        int
		field        string // empty = it is taken
	}{
		{"runware:101@1", `{}`, 1, ""},
		{"klingai:avatar@2.0-standard", `{"positivePrompt":"x","width":1,"steps":1.50,"lora":[{"model":"a:b@c","weight":1}]}`, 20, ""},
		{"sim:fox@1", `{"positivePrompt":"` + prompt + `"}`, 1, ""},
		{"sim:fox@1", `{"taskType":"videoInference","outputType":"base64Data"}`, 1, ""},
		{"sim:fox@1", `{"taskType":"3dInference","outputType":"dataURI"}`, 1, ""},
		{"sim:fox@1", `{"seed":9223372036854775806}`, 1, ""},
		{"sim:fox@1", `{"seed":0}`, 1, ""},
		{"fox", `{}`, 1, "model"},
		{"a:b", `{}`, 1, "model"},
		{"a@b:c", `{}`, 1, "model"},
		{":b@c", `{}`, 1, "model"},
		{"a:b@", `{}`, 1, "model"},
		{"a:b @c", `{}`, 1, "model"},
		{"a:b@c\n", `{}`, 1, "model"},
		{"a:b@" + strings.Repeat("c", 253), `{}`, 1, "model"},
		{"sim:fox@1", `[]`, 1, "input"},
		{"sim:fox@1", `null`, 1, "input"},
		{"sim:fox@1", `{`, 1, "input"},
		{"sim:fox@1", ``, 1, "input"},
		{"sim:fox@1", `{"taskUUID":"x"}`, 1, "input.taskUUID"},
		{"sim:fox@1", `{"webhookURL":"http://x"}`, 1, "input.webhookURL"},
		{"sim:fox@1", `{"webhookurl":"http://x"}`, 1, "input.webhookurl"},
		{"sim:fox@1", `{"numberResults":1}`, 1, "input.numberResults"},
		{"sim:fox@1", `{"includeCost":true}`, 1, "input.includeCost"},
		{"sim:fox@1", `{"deliveryMethod":"sync"}`, 1, "input.deliveryMethod"},
		{"sim:fox@1", `{"uploadEndpoint":"http://x"}`, 1, "input.uploadEndpoint"},
		{"sim:fox@1", `{"ttl":60}`, 1, "input.ttl"},
		{"sim:fox@1", `{"model":"a:b@c"}`, 1, "input.model"},
		{"sim:fox@1", `{"apiKey":"x"}`, 1, "input.apiKey"},
		{"sim:fox@1", `{"taskType":"upscale"}`, 1, "input.taskType"},
		{"sim:fox@1", `{"taskType":null}`, 1, "input.taskType"},
		{"sim:fox@1", `{"outputType":"zip"}`, 1, "input.outputType"},
		{"sim:fox@1", `{"positivePrompt":["x"]}`, 1, "input.positivePrompt"},
		{"sim:fox@1", `{"positivePrompt":null}`, 1, "input.positivePrompt"},
		{"sim:fox@1", `{"seed":9223372036854775806}`, 2, "input.seed"},
		{"sim:fox@1", `{"seed":-1}`, 1, "input.seed"},
		{"sim:fox@1", `{"seed":1.0}`, 1, "input.seed"},
		{"sim:fox@1", `{"seed":1e3}`, 1, "input.seed"},
		{"sim:fox@1", `{"seed":"1"}`, 1, "input.seed"},
		{"sim:fox@1", `{"inputs":{"images":["http://x","` + file + `"]}}`, 1, "input.inputs.images[1]"},
		{"sim:fox@1", `{"seedImage":"data:image/png;base64,` + file + `"}`, 1, "input.seedImage"},
		{"sim:fox@1", `{"a":[{"$file":"inputs/` + strings.Repeat("a1", 32) + `"}]}`, 1, ""},
	} {
		p := runware.New(runware.Config{})
		err := p.Check(c.model, json.RawMessage(c.input), c.count)
		var invalid *provider.Invalid
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s %.60s: %v", c.model, c.input, err)
		case c.field != "" && !errors.As(err, &invalid):
			t.Errorf("%s %.60s: error %v, want a *provider.Invalid", c.model, c.input, err)
		case c.field != "" && (invalid.Field != c.field || invalid.Reason == ""):
			t.Errorf("%s %.60s: %+v, want field %s", c.model, c.input, *invalid, c.field)
		}
	}
}

func TestKeyIsShownNowhere(t *testing.T) {
	cfg := runware.Config{Name: "main", BaseURL: "http://x", Key: "sk-secret"}
	p := runware.New(cfg)
	for _, s := range []string{
		fmt.Sprint(p), fmt.Sprintf("%v %+v %#v", p, p, p), fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg), fmt.Sprintf("%v", []any{cfg, p}),
	} {
		if strings.Contains(s, "secret") {
			t.Errorf("the key is in %s", s)
		}
	}
}
