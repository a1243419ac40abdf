package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one line of the Dockerfile, with the lines that continue it.
type instruction struct{ verb, rest string }

func dockerfile(t *testing.T) []instruction {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var all []instruction
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	for line := range strings.Lines(joined) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		all = append(all, instruction{strings.ToUpper(verb), strings.TrimSpace(rest)})
	}
	return all
}

func TestDockerfileKeepsItsPromises(t *testing.T) {
	var stages []string // what each is built from
	user, entry := "", ""
	for _, i := range dockerfile(t) {
		switch i.verb {
		case "FROM":
			stages = append(stages, strings.Fields(i.rest)[0])
			user = ""
		case "USER":
			user = i.rest
		case "ENTRYPOINT":
			entry = i.rest
			if user == "" {
				t.Error("the entry point comes before the user")
			}
		case "ADD":
			t.Errorf("ADD %s: what comes from elsewhere is not checked", i.rest)
		case "ARG", "ENV":
			if regexp.MustCompile(`(?i)key|secret|password|token|cred`).MatchString(i.rest) {
				t.Errorf("%s %s: an image holds no secret", i.verb, i.rest)
			}
			for _, m := range regexp.MustCompile(envPrefix+`(\w+)=`).FindAllStringSubmatch(i.rest, -1) {
				if flag := strings.ToLower(strings.ReplaceAll(m[1], "_", "-")); serveCommand().Flags().Lookup(flag) == nil {
					t.Errorf("there is no setting %s", m[0])
				}
			}
		case "RUN", "COPY":
			if regexp.MustCompile(`curl|wget|https?://|--mount=type=secret|apt-get`).MatchString(i.rest) {
				t.Errorf("%s %s: a build downloads Go modules, whose sums are known, and nothing else", i.verb, i.rest)
			}
		case "WORKDIR", "STOPSIGNAL", "CMD":
		default:
			t.Errorf("%s: say here what is to hold for it", i.verb)
		}
	}
	if len(stages) != 2 {
		t.Fatalf("the stages are %v, want one that builds and one that runs", stages)
	}
	if !regexp.MustCompile(`^[1-9]\d*(:[1-9]\d*)?$`).MatchString(user) {
		t.Errorf("it runs as user %q, want a number other than 0", user)
	}
	if !strings.HasPrefix(entry, "[") || !strings.Contains(entry, "genstream") {
		t.Errorf("the entry point is %s: a shell would not pass signals on", entry)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))[1]
	release, ok := strings.CutPrefix(stages[0], "golang:"+version+"-")
	if !ok || !strings.HasPrefix(stages[1], "debian:"+release) {
		t.Errorf("built on %s and run on %s: want Go %s, and the same release for both, since the binary links the C library", stages[0], stages[1], version)
	}
}

// TestDockerIsSentTheSourceAlone: a key file that lies about must not end up
// in a layer.
func TestDockerIsSentTheSourceAlone(t *testing.T) {
	text, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	if lines[0] != "*" {
		t.Errorf("the first line is %s: what is not named must not be sent", lines[0])
	}
	var sent []string
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, "!"); ok {
			sent = append(sent, name)
		}
	}
	slices.Sort(sent)
	if want := []string{"blob", "cmd", "events", "go.mod", "go.sum", "orchestrator", "projector"}; !slices.Equal(sent, want) {
		t.Errorf("sent are %v, want %v", sent, want)
	}
}
