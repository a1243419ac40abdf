package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
)

var (
	shaA = strings.Repeat("a1", 32)
	shaB = strings.Repeat("0f", 32)
)

func file(sha string) string { return `{"$file":"inputs/` + sha + `"}` }

func TestFilesOfAnInputAreFoundWhereverTheyStand(t *testing.T) {
	for _, c := range []struct {
		name, input, want string
	}{
		{"none", `{"positivePrompt":"$file","inputs":"inputs/` + shaA + `"}`, ""},
		{"a field", `{"seedImage":` + file(shaA) + `}`, "input.seedImage=A"},
		{
			"a list in an object", `{"inputs":{"references":["https://x.example/a.png",` + file(shaA) + `,` + file(shaB) + `]}}`,
			"input.inputs.references[1]=A input.inputs.references[2]=B",
		},
		{"the same one twice", `{"a":` + file(shaA) + `,"b":` + file(shaA) + `}`, "input.a=A input.b=A"},
		{"lists of lists", `{"a":[[],[[` + file(shaB) + `]]]}`, "input.a[1][0][0]=B"},
		{"white space and an escape in the key", `{"a": { "\u0024file" : "inputs/` + shaA + `" } }`, "input.a=A"},
		{"beside numbers that no float holds", `{"n":1e999,"m":123456789012345678901234567890,"a":` + file(shaA) + `}`, "input.a=A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, err := events.InputFiles(json.RawMessage(c.input))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, f.Path+"="+map[string]string{shaA: "A", shaB: "B"}[f.SHA256])
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("found %q, want %q", s, c.want)
			}
		})
	}
}

func TestAFileIsNamedInOneFormOnly(t *testing.T) {
	many := strings.Repeat(file(shaA)+",", events.MaxFiles)
	for _, c := range []struct {
		name, input, path string
	}{
		{"something beside it", `{"a":{"$file":"inputs/` + shaA + `","x":1}}`, "input.a"},
		{"something before it", `{"a":{"x":1,"$file":"inputs/` + shaA + `"}}`, "input.a"},
		{"twice in one object", `{"a":{"$file":"inputs/` + shaA + `","$file":"inputs/` + shaB + `"}}`, "input.a"},
		{"a number", `{"a":{"$file":1}}`, "input.a"},
		{"null", `{"a":{"$file":null}}`, "input.a"},
		{"nothing", `{"a":{"$file":""}}`, "input.a"},
		{"an object", `{"a":{"$file":{"$file":"inputs/` + shaA + `"}}}`, "input.a"},
		{"a list", `{"a":{"$file":["inputs/` + shaA + `"]}}`, "input.a"},
		{"another folder", `{"a":[0,{"$file":"generations/` + shaA + `"}]}`, "input.a[1]"},
		{"the hash alone", `{"a":{"$file":"` + shaA + `"}}`, "input.a"},
		{"upper case", `{"a":{"$file":"inputs/` + strings.ToUpper(shaA) + `"}}`, "input.a"},
		{"too short", `{"a":{"$file":"inputs/` + shaA[1:] + `"}}`, "input.a"},
		{"too long", `{"a":{"$file":"inputs/` + shaA + `0"}}`, "input.a"},
		{"with a file ending", `{"a":{"$file":"inputs/` + shaA + `.png"}}`, "input.a"},
		{"traversal", `{"a":{"$file":"inputs/../` + shaA[3:] + `"}}`, "input.a"},
		{"a URL", `{"a":{"$file":"https://x.example/"}}`, "input.a"},
		{"the input itself", file(shaA), "input"},
		{"one too many", `{"a":[` + many + file(shaB) + `]}`, fmt.Sprintf("input.a[%d]", events.MaxFiles)},
		{"not JSON", `{"a":`, "input.a"},
		{"an array cut off", `{"a":[1`, "input.a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, err := events.InputFiles(json.RawMessage(c.input))
			var wrong *events.InputError
			if !errors.As(err, &wrong) || files != nil {
				t.Fatalf("found %v, %v; want an InputError", files, err)
			}
			if wrong.Path != c.path || wrong.Reason == "" {
				t.Errorf("%q at %s, want it at %s", wrong.Reason, wrong.Path, c.path)
			}
		})
	}
}

func TestReplacingFilesLeavesTheRestAsItWasWritten(t *testing.T) {
	input := `{"n":1.50e3, "a":` + file(shaA) + `,"s":"é<&>","l":[ ` + file(shaB) + ` , {"k":[]}],"big":18446744073709551616}`
	got, err := events.ReplaceFiles(json.RawMessage(input), func(sha string) (string, error) { return `"` + sha[:2] + `"`, nil })
	if err != nil {
		t.Fatal(err)
	}
	want := `{"n":1.50e3, "a":"\"a1\"","s":"é<&>","l":[ "\"0f\"" , {"k":[]}],"big":18446744073709551616}`
	if string(got) != want {
		t.Errorf("became\n%s\nwant\n%s", got, want)
	}
	broken := errors.New("no")
	if _, err := events.ReplaceFiles(json.RawMessage(input), func(string) (string, error) { return "", broken }); !errors.Is(err, broken) {
		t.Errorf("error is %v, want the one of the bucket", err)
	}
}

// TestDeepInputsAreReadInTime: 32 KiB of brackets are a legal request.
func TestDeepInputsAreReadInTime(t *testing.T) {
	deep := strings.Repeat("[", 9_000)
	input := `{"a":` + deep + file(shaA) + strings.Repeat("]", len(deep)) + `}`
	files, err := events.InputFiles(json.RawMessage(input))
	if err != nil || len(files) != 1 || len(files[0].Path) > 256 {
		t.Fatalf("%d files, %v", len(files), err)
	}
}

func FuzzInputFiles(f *testing.F) {
	f.Add(`{"a":` + file(shaA) + `}`)
	f.Add(`{"a":[{"$file":"inputs/x"}]}`)
	f.Add(`{"$file":{"$file":[]}}`)
	f.Fuzz(func(t *testing.T, input string) {
		files, err := events.InputFiles(json.RawMessage(input))
		if err != nil || !json.Valid([]byte(input)) {
			return
		}
		out, err := events.ReplaceFiles(json.RawMessage(input), func(sha string) (string, error) { return sha, nil })
		if err != nil || !json.Valid(out) {
			t.Fatalf("%q became %q, %v", input, out, err)
		}
		if again, err := events.InputFiles(out); err != nil || len(again) != 0 {
			t.Errorf("%d files, and %d after they were replaced, %v", len(files), len(again), err)
		}
	})
}
