package runware

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/genstream/genstream/orchestrator/provider"
)

// maxModel bounds a model's name, in bytes.
const maxModel = 256

// maxText is the length above which a base64 string is taken for a file, in bytes.
const maxText = 4 << 10

// Check implements provider.Provider.
func (p *Provider) Check(model string, input json.RawMessage, count int) error {
	if len(model) > maxModel || !isAIR(model) {
		return &provider.Invalid{Field: "model", Reason: "want source:id@version, such as runware:101@1, in at most 256 bytes"}
	}
	fields, err := fieldsOf(input)
	if err != nil {
		return err
	}
	for k, v := range fields {
		if err := checkField(k, v, count); err != nil {
			return err
		}
	}
	if len(input) <= maxText {
		return nil // no string in it is that long
	}
	d := json.NewDecoder(bytes.NewReader(input))
	return checkFiles(d, "input")
}

// isAIR says whether a model's name has Runware's form, source:id@version; names
// are allowed on both sides.
func isAIR(model string) bool {
	source, rest, colon := strings.Cut(model, ":")
	id, version, at := strings.Cut(rest, "@")
	blank := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	return colon && at && source != "" && id != "" && version != "" &&
		!strings.Contains(source, "@") && !strings.ContainsFunc(model, blank)
}

func fieldsOf(input json.RawMessage) (item, error) {
	if json.Valid(input) {
		if fields, ok := object(input); ok {
			return fields, nil
		}
	}
	return nil, &provider.Invalid{Field: "input", Reason: "want a JSON object"}
}

// taskTypes and outputTypes are what an input may say; the first is the default.
func taskTypes() []string {
	return []string{"imageInference", "videoInference", "audioInference", "3dInference"}
}

func outputTypes() []string { return []string{"URL", "base64Data", "dataURI"} }

func checkField(key string, v json.RawMessage, count int) error {
	invalid := func(format string, args ...any) error {
		return &provider.Invalid{Field: "input." + key, Reason: fmt.Sprintf(format, args...)}
	}
	oneOf := func(allowed []string) error {
		var s string
		if json.Unmarshal(v, &s) != nil || !slices.Contains(allowed, s) {
			return invalid("want one of %s", strings.Join(allowed, ", "))
		}
		return nil
	}
	switch key {
	case "taskType":
		return oneOf(taskTypes())
	case "outputType":
		return oneOf(outputTypes())
	case "positivePrompt":
		var s *string
		if json.Unmarshal(v, &s) != nil || s == nil {
			return invalid("want a string")
		}
		return nil
	case "seed":
		if _, ok := seedPlus(v, count); !ok {
			return invalid("want an integer from 0 to 2^63-1 less the count")
		}
		return nil
	}
	// In any case of letters: there are servers that do not tell them apart.
	switch strings.ToLower(key) {
	case "taskuuid", "model", "numberresults", "webhookurl", "deliverymethod", "includecost", "ttl", "uploadendpoint",
		"apikey", "connectionsessionuuid", "tasktype", "outputtype", "seed":
		return invalid("genstream sets this itself")
	}
	return nil
}

// seedPlus is a seed plus n, in digits. It reports false for anything but an
// integer written in digits whose sum is within 2^63-1.
func seedPlus(raw json.RawMessage, n int) (json.RawMessage, bool) {
	text := string(raw)
	if text == "" || len(text) > 19 || strings.Trim(text, "0123456789") != "" {
		return nil, false
	}
	sum, err := strconv.ParseUint(text, 10, 64) // 19 digits fit
	if sum += uint64(n); err != nil || sum > math.MaxInt64 {
		return nil, false
	}
	return strconv.AppendUint(nil, sum, 10), true
}

// checkFiles looks for files in one value, and in what it holds.
func checkFiles(d *json.Decoder, path string) error {
	d.UseNumber()
	t, err := d.Token()
	if err != nil {
		return &provider.Invalid{Field: path, Reason: "not JSON"}
	}
	switch t := t.(type) {
	case string:
		if len(t) > maxText && isBase64(t) {
			return &provider.Invalid{Field: path, Reason: "inline files are not taken in an input: upload the file and name it, or give an http or https address"}
		}
	case json.Delim:
		for n := 0; d.More(); n++ {
			inner := fmt.Sprintf("%s[%d]", path, n)
			if t == '{' {
				key, err := d.Token()
				if err != nil {
					return &provider.Invalid{Field: path, Reason: "not JSON"}
				}
				inner = fmt.Sprintf("%s.%v", path, key)
			}
			if err := checkFiles(d, inner); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil {
			return &provider.Invalid{Field: path, Reason: "not JSON"}
		}
	}
	return nil
}

func isBase64(s string) bool {
	if len(s) > 5 && strings.EqualFold(s[:5], "data:") {
		if i := strings.IndexByte(s, ','); i > 0 && strings.Contains(strings.ToLower(s[:i]), ";base64") {
			return true
		}
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if _, err := e.DecodeString(s); err == nil {
			return true
		}
	}
	return false
}
