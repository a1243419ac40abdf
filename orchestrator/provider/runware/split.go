package runware

import "encoding/json"

// object is the members of a JSON object as they are written; of two with the same
// name the last one counts. raw is valid JSON; ok says whether it is an object. The
// values are parts of raw.
func object(raw []byte) (members item, ok bool) {
	raw = trim(raw)
	if len(raw) == 0 || raw[0] != '{' {
		return nil, false
	}
	members = make(item, 8) // what a result has
	for i := space(raw, 1); raw[i] != '}'; i = space(raw, i) {
		if raw[i] == ',' {
			i = space(raw, i+1)
		}
		end := text(raw, i)
		key := unquote(raw[i:end])
		i = space(raw, space(raw, end)+1) // over the colon
		end = value(raw, i)
		members[key] = raw[i:end:end]
		i = end
	}
	return members, true
}

// elements is the values of a JSON array, and nothing for any other value. raw is
// valid JSON; the values are parts of it.
func elements(raw []byte) (list []json.RawMessage) {
	raw = trim(raw)
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	for i := space(raw, 1); raw[i] != ']'; i = space(raw, i) {
		if raw[i] == ',' {
			i = space(raw, i+1)
		}
		end := value(raw, i)
		list = append(list, raw[i:end:end])
		i = end
	}
	return list
}

// value is where the value ends that begins at i.
func value(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = text(b, i) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			for i+1 < len(b) && !ends(b[i+1]) {
				i++
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}

// ends says whether a number or word is over before c; between the values of an
// array or object, everything but a quote or bracket is passed over with them.
func ends(c byte) bool {
	switch c {
	case ',', ':', '"', '{', '[', '}', ']', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

// text is where the string ends that begins at i.
func text(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// space is where the white space ends that may begin at i.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// trim leaves the white space out that stands in front.
func trim(b []byte) []byte { return b[space(b, 0):] }

// unquote is the text of a JSON string; empty if raw is none.
func unquote(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	if inner := raw[1 : len(raw)-1]; plain(inner) {
		return string(inner)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// quote is s as JSON, without the escaping for HTML.
func quote(s string) json.RawMessage { return appendQuoted(make([]byte, 0, len(s)+2), s) }

func appendQuoted(b []byte, s string) []byte {
	if !plain(s) {
		return append(b, encode(s)...)
	}
	return append(append(append(b, '"'), s...), '"')
}

// plain says whether a text is the same inside the quotes of JSON.
func plain[T ~string | ~[]byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
