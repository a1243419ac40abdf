package runware

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
)

// item is one object of an answer or webhook. It stays a map, so that a field of
// an unexpected type spoils nothing but itself, and unknown ones can be kept.
type item map[string]json.RawMessage

// text is a field that is a JSON string, and empty otherwise.
func (i item) text(key string) string { return unquote(i[key]) }

// has says whether a field is there and not null.
func (i item) has(key string) bool {
	v, ok := i[key]
	return ok && !bytes.Equal(v, []byte("null"))
}

// task is the task that the item is about; empty if it does not say.
func (i item) task() string { return i.text("taskUUID") }

// word is what an item says of its task.
type word int

const (
	acknowledged word = iota // it is taken, or nothing is said but that
	processing               // it is being worked on
	finished                 // there is an output
	failed                   // there will be none
)

func (i item) word() word {
	s := i.text("status")
	switch {
	case s == "error" || s == "failed" || i.has("error"):
		return failed
	case i.output() != "":
		return finished
	case i.has("code"):
		return failed
	case s == "":
		return acknowledged
	case s == "success":
		return finished // of a kind that is not known here
	}
	return processing
}

// outputKeys are the fields that may hold an output, in the order in which they are believed.
func outputKeys() []string {
	return []string{"imageURL", "videoURL", "audioURL", "mediaURL"}
}

// output is the output's URL or inline mark; empty if there is none.
func (i item) output() string {
	for _, k := range outputKeys() {
		if s := i.text(k); s != "" {
			return s
		}
	}
	if raw := i["outputs"]; raw != nil {
		var files struct {
			Files []struct {
				URL string `json:"url"`
			} `json:"files"`
		}
		if json.Unmarshal(raw, &files) == nil && len(files.Files) > 0 && files.Files[0].URL != "" {
			return files.Files[0].URL
		}
	}
	first, found := "", ""
	for k := range i {
		if inlineKey(k) && (found == "" || k < first) {
			if s := i.text(k); s != "" {
				first, found = k, s
			}
		}
	}
	return found
}

// inlineKey is imageBase64Data, imageDataURI and the like.
func inlineKey(k string) bool {
	return strings.HasSuffix(k, "Base64Data") || strings.HasSuffix(k, "DataURI")
}

// flattened is a failure whose words stand in an object or string of its own
// ({"error":{"code":…},"taskUUID":…}) in the usual form.
func (i item) flattened() item {
	if !i.has("error") {
		return i
	}
	flat := maps.Clone(i)
	delete(flat, "error")
	inner, ok := object(i["error"])
	if !ok {
		if _, ok := flat["message"]; !ok {
			flat["message"] = i["error"] // a string, or else it is read as no message
		}
		return flat
	}
	for k, v := range inner {
		if !flat.has(k) || k == "code" || k == "message" {
			flat[k] = v
		}
	}
	return flat
}

// parts is an answer or webhook in its one normal form.
type parts struct {
	data []item // what stood in data[], or bare and is no failure
	errs []item // what stood in errors[] or error, or bare and is a failure
}

// partsOf reads every envelope there is: a flat item, {data}, {errors}, both,
// {error}, and an array of those. It reports false for anything else.
func partsOf(body []byte) (p parts, ok bool) {
	body = bytes.TrimSpace(body)
	if !json.Valid(body) {
		return p, false
	}
	if one, ok := object(body); ok {
		p.add(one)
		return p, true
	}
	if body[0] != '[' {
		return p, false
	}
	for _, e := range elements(body) {
		i, ok := object(e)
		if !ok {
			return parts{}, false
		}
		p.add(i)
	}
	return p, true
}

func (p *parts) add(i item) {
	if !enclosed(i["data"]) && !enclosed(i["errors"]) {
		if i.word() == failed {
			p.errs = append(p.errs, i.flattened())
		} else {
			p.data = append(p.data, i)
		}
		return
	}
	p.data = append(p.data, items(i["data"])...)
	for _, e := range items(i["errors"]) {
		p.errs = append(p.errs, e.flattened())
	}
	if i.has("error") {
		p.errs = append(p.errs, item{"error": i["error"]}.flattened())
	}
}

// enclosed says whether a field is a list of items or one item.
func enclosed(v json.RawMessage) bool {
	return len(v) > 0 && (v[0] == '[' || v[0] == '{')
}

// items are the objects of a list, or the one object in its place.
func items(v json.RawMessage) (out []item) {
	if one, ok := object(v); ok {
		return []item{one}
	}
	for _, e := range elements(v) {
		if i, ok := object(e); ok {
			out = append(out, i)
		}
	}
	return out
}
