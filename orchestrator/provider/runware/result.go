package runware

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// errAlien is a webhook body that Runware does not send.
var errAlien = errors.New("not a body of Runware's")

// Parse implements provider.Provider. Progress and acknowledgements are passed
// over, and so are failures that name no task: a poll tells whose they are.
func (p *Provider) Parse(body []byte) ([]provider.Result, error) {
	in, ok := partsOf(body)
	if !ok {
		return nil, errAlien
	}
	var out []provider.Result
	known := len(in.errs) > 0 || len(in.data) == 0
	for _, i := range in.data {
		known = known || i.task() != ""
		if w := i.word(); i.task() != "" && (w == finished || w == failed) {
			out = append(out, p.result(i.task(), i))
		}
	}
	for _, e := range in.errs {
		if e.task() != "" {
			out = append(out, p.failure(e.task(), e))
		}
	}
	if !known {
		return nil, errAlien
	}
	return out, nil
}

// result is a finished item, good or bad.
func (p *Provider) result(task string, i item) provider.Result {
	if i.word() == failed {
		return p.failure(task, i.flattened())
	}
	r := provider.Result{Task: task, Seed: seedOf(i["seed"]), Cost: costOf(i["cost"]), Metadata: metadata(i)}
	refuse := func(code, message string) provider.Result {
		// It was made and paid for: trying again would buy it again.
		r.Error = &events.Error{Code: code, Message: message, Class: events.Unknown}
		return r
	}
	where := i.output()
	if n, ok := strings.CutPrefix(where, "$inline:"); ok {
		var err error
		if r.Inline, err = strconv.Atoi(n); err == nil && r.Inline > 0 {
			return r
		}
		r.Inline = 0
	}
	u, err := url.Parse(where)
	switch {
	case where == "":
		return refuse(events.CodeFetchGone, "the provider says that it succeeded, and names no file")
	case events.Fit(events.Result{URL: where}).URL == "":
		return refuse(events.CodeFetchForbid, "the output's address is too long")
	case err != nil || u.Host == "" || !strings.EqualFold(u.Scheme, "http") && !strings.EqualFold(u.Scheme, "https"):
		return refuse(events.CodeFetchForbid, "the output is neither at an http or https address nor a file in base64")
	}
	r.URL = where
	return r
}

func (p *Provider) failure(task string, e item) provider.Result {
	err := p.errorOf(e, 0)
	return provider.Result{Task: task, Cost: costOf(e["cost"]), Error: &err}
}

// errorOf is an error item as an event holds it; http is the HTTP code that it
// came with, 0 = none.
func (p *Provider) errorOf(e item, http int) events.Error {
	code, class := e.text("code"), classOfHTTP(http)
	if code != "" {
		class = classOf(code)
	} else {
		code = "unknown"
		if http >= 400 {
			code = "http" + strconv.Itoa(http)
		}
	}
	message := e.text("message")
	if message == "" {
		message = "the provider gave no reason"
		if http >= 400 {
			message += ", but HTTP " + strconv.Itoa(http)
		}
	}
	return events.Error{
		Code:    events.Cut(p.scrub(code), events.MaxCode),
		Message: events.Cut(p.scrub(message), events.MaxNote),
		Class:   class,
	}
}

// seedOf is a seed in decimal digits, of whatever size; empty if there is none.
// Runware's own bound, 9223372036854776000, is over 2^63-1.
func seedOf(raw json.RawMessage) string {
	if digits(raw) && len(raw) < 19 {
		return string(raw)
	}
	r, ok := number(raw)
	if !ok || !r.IsInt() || r.Sign() < 0 || r.Num().BitLen() > 64 {
		return ""
	}
	return r.Num().String()
}

// costOf turns dollars, as they are written, into billionths of a dollar, rounded
// half up; nil if there is none.
func costOf(raw json.RawMessage) *int64 {
	if n, ok := billionths(raw); ok {
		return &n
	}
	r, ok := number(raw)
	if !ok || r.Sign() < 0 {
		return nil
	}
	twice := new(big.Int).Mul(r.Num(), big.NewInt(2e9))
	n := new(big.Int).Div(twice.Add(twice, r.Denom()), new(big.Int).Mul(r.Denom(), big.NewInt(2)))
	if !n.IsInt64() {
		return nil
	}
	cost := n.Int64()
	return &cost
}

// billionths reads the numbers that prices are: decimal digits, of which up to 9
// stand before and up to 9 behind the point. It reports false for all others.
func billionths(raw json.RawMessage) (n int64, ok bool) {
	whole, part, point := bytes.Cut(raw, []byte("."))
	if !digits(whole) || len(whole) > 9 || point && !digits(part) || len(part) > 9 {
		return 0, false
	}
	for i := range len(whole) + 9 {
		n *= 10
		switch at := i - len(whole); {
		case at < 0:
			n += int64(whole[i] - '0')
		case at < len(part):
			n += int64(part[at] - '0')
		}
	}
	return n, true
}

func digits(raw []byte) bool {
	for _, c := range raw {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(raw) > 0
}

// number reads a JSON number, or one in a string, exactly.
func number(raw json.RawMessage) (*big.Rat, bool) {
	text := strings.Trim(string(bytes.TrimSpace(raw)), `"`)
	if text == "" || len(text) > 40 || strings.Trim(text, "0123456789+-.eE") != "" {
		return nil, false
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		if e, err := strconv.Atoi(text[i+1:]); err != nil || e < -40 || e > 40 {
			return nil, false // a huge exponent would be a huge number
		}
	}
	return new(big.Rat).SetString(text)
}

// metadata keeps the scalar fields that have no other place, in the order of
// their names, in at most events.MaxNote bytes; nil if there are none.
func metadata(i item) json.RawMessage {
	const perValue = 256 // bytes of one value, so that one cannot crowd out the others
	const left = `,"` + events.CutMark + `":true}`
	b, cut := []byte{'{'}, false
	for _, k := range slices.Sorted(maps.Keys(i)) {
		if placed(k) {
			continue
		}
		v, ok := scalar(i[k], perValue)
		if !ok {
			continue
		}
		key := quote(k)
		if len(b)+len(key)+len(v)+2+len(left) > events.MaxNote {
			cut = true
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, key...), ':'), v...)
	}
	switch {
	case cut && len(b) == 1:
		return json.RawMessage(`{` + left[1:])
	case cut:
		return append(b, left...)
	case len(b) == 1:
		return nil
	}
	return append(b, '}')
}

// placed says whether a field has a place of its own, or none at all.
func placed(k string) bool {
	switch k {
	case "taskUUID", "taskType", "status", "seed", "cost", "code", "message", "progress":
		return true
	}
	return inlineKey(k) || strings.HasSuffix(k, "URL") && slices.Contains(outputKeys(), k)
}

// scalar is a string, number or boolean as events encode it.
func scalar(raw json.RawMessage, limit int) (json.RawMessage, bool) {
	switch {
	case raw[0] == '{' || raw[0] == '[':
		return nil, false
	case len(raw) <= limit && (raw[0] != '"' || plain(raw[1:len(raw)-1])):
		return raw, raw[0] != 'n' // null
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil, false
	}
	switch s := v.(type) {
	case string:
		v = events.Cut(s, limit)
	case json.Number:
		if len(s) > limit {
			return nil, false
		}
	case bool:
	default:
		return nil, false
	}
	return encode(v), true
}
