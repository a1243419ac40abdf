package runware_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

func parse(t *testing.T, body string) []provider.Result {
	t.Helper()
	got, err := runware.New(runware.Config{Key: "sk-secret"}).Parse([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return got
}

func TestEveryEnvelopeIsRead(t *testing.T) {
	const good, bad = `{"taskUUID":"A","imageURL":"https://x/1.png"}`, `{"taskUUID":"B","code":"promptBlocked","message":"no"}`
	for name, c := range map[string]struct{ body, want string }{
		"flat":                   {good, "A=https://x/1.png"},
		"flat failure":           {bad, "B!promptBlocked"},
		"data":                   {`{"data":[` + good + `]}`, "A=https://x/1.png"},
		"data, one object":       {`{"data":` + good + `}`, "A=https://x/1.png"},
		"errors":                 {`{"errors":[` + bad + `]}`, "B!promptBlocked"},
		"both":                   {`{"data":[` + good + `],"errors":[` + bad + `]}`, "A=https://x/1.png B!promptBlocked"},
		"data and error":         {`{"data":[` + good + `],"error":{"taskUUID":"B","code":"promptBlocked"}}`, "A=https://x/1.png B!promptBlocked"},
		"array":                  {`[` + good + `,` + bad + `]`, "A=https://x/1.png B!promptBlocked"},
		"array of envelopes":     {`[{"data":[` + good + `]},{"errors":[` + bad + `]}]`, "A=https://x/1.png B!promptBlocked"},
		"error":                  {`{"error":{"code":"promptBlocked","message":"no"},"taskUUID":"B"}`, "B!promptBlocked"},
		"error with the task":    {`{"error":{"code":"promptBlocked","taskUUID":"B"}}`, "B!promptBlocked"},
		"error as a text":        {`{"error":"no","taskUUID":"B"}`, "B!unknown"},
		"failure in data":        {`{"data":[{"taskUUID":"B","status":"error","error":{"code":"promptBlocked"}}]}`, "B!promptBlocked"},
		"status alone":           {`{"taskUUID":"B","status":"failed"}`, "B!unknown"},
		"processing":             {`{"data":[{"taskUUID":"A","status":"processing","progress":10}]}`, ""},
		"acknowledgement":        {`{"data":[{"taskUUID":"A","taskType":"imageInference"}]}`, ""},
		"empty":                  {`{"data":[],"errors":[]}`, ""},
		"failure of nobody":      {`{"errors":[{"code":"x"}]}`, ""},
		"null beside":            {`{"data":[` + good + `],"errors":null,"error":null}`, "A=https://x/1.png"},
		"strange beside":         {`{"data":[7,` + good + `]}`, "A=https://x/1.png"},
		"video":                  {`{"taskUUID":"A","videoURL":"https://x/v.mp4","status":"success"}`, "A=https://x/v.mp4"},
		"audio":                  {`{"taskUUID":"A","audioURL":"https://x/a.mp3"}`, "A=https://x/a.mp3"},
		"media":                  {`{"taskUUID":"A","mediaURL":"https://x/m.bin"}`, "A=https://x/m.bin"},
		"files":                  {`{"taskUUID":"A","outputs":{"files":[{"uuid":"u","url":"https://x/1.glb"},{"url":"https://x/2.glb"}]}}`, "A=https://x/1.glb"},
		"base64":                 {`{"taskUUID":"A","imageBase64Data":"$inline:2"}`, "A#2"},
		"data URI":               {`{"taskUUID":"A","imageDataURI":"$inline:1"}`, "A#1"},
		"data URI as URL":        {`{"taskUUID":"A","imageURL":"$inline:1"}`, "A#1"},
		"broken base64":          {`{"taskUUID":"A","imageBase64Data":"%%%"}`, "A!file_address"},
		"forged mark":            {`{"taskUUID":"A","imageBase64Data":"$$inline:1"}`, "A!file_address"},
		"success without a file": {`{"taskUUID":"A","status":"success"}`, "A!file_gone"},
		"other scheme":           {`{"taskUUID":"A","imageURL":"file:///etc/passwd"}`, "A!file_address"},
		"no host":                {`{"taskUUID":"A","imageURL":"https:///x"}`, "A!file_address"},
		"long address":           {`{"taskUUID":"A","imageURL":"https://x/` + strings.Repeat("y", events.MaxURL) + `"}`, "A!file_address"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range parse(t, c.body) {
				switch {
				case r.Error != nil && r.URL == "" && r.Inline == 0:
					got = append(got, r.Task+"!"+r.Error.Code)
				case r.Inline > 0 && r.URL == "":
					got = append(got, fmt.Sprintf("%s#%d", r.Task, r.Inline))
				default:
					got = append(got, r.Task+"="+r.URL)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func TestNumbersAreExact(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "42": "42", "9007199254740993": "9007199254740993", "9223372036854776000": "9223372036854776000",
		`"77"`: "77", "9.223372036854776e18": "9223372036854776000", "1.5": "", "-1": "", "null": "", "true": "", "1e999": "", "1e19000000": "",
	} {
		if got := parse(t, `{"taskUUID":"A","imageURL":"http://x/y","seed":`+text+`}`)[0].Seed; got != want {
			t.Errorf("seed %s became %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]int64{
		"0": 0, "0.0013": 1300000, "0.0006": 600000, "1.3e-3": 1300000, "0.1": 100000000, "0.29": 290000000,
		"0.0000000005": 1, "0.00000000049": 0, "12.000000001": 12000000001, `"0.5"`: 500000000,
		"-1": -1, "1e30": -1, "1e-999999999": -1, "null": -1, "[]": -1,
	} {
		got := parse(t, `{"taskUUID":"A","imageURL":"http://x/y","cost":`+text+`}`)[0].Cost
		if want < 0 && got != nil || want >= 0 && (got == nil || *got != want) {
			t.Errorf("cost %s: wrong, want %d", text, want)
		}
	}
}

func TestMetadataIsSmallAndInOrder(t *testing.T) {
	r := parse(t, `{"taskUUID":"A","taskType":"t","status":"success","imageURL":"http://x/y","seed":1,"cost":1,
		"zeta":1.50,"NSFWContent":true,"imageUUID":"u","note":"<b>","list":[1],"obj":{},"none":null}`)[0]
	if want := `{"NSFWContent":true,"imageUUID":"u","note":"<b>","zeta":1.50}`; string(r.Metadata) != want {
		t.Errorf("metadata %s, want %s", r.Metadata, want)
	}
	if r := parse(t, `{"taskUUID":"A","imageURL":"http://x/y"}`)[0]; r.Metadata != nil {
		t.Errorf("metadata %s, want none", r.Metadata)
	}
	var fields []string
	for i := range 50 {
		fields = append(fields, fmt.Sprintf(`"k%02d":"%s"`, i, strings.Repeat("<", 100)))
	}
	m := parse(t, `{"taskUUID":"A","imageURL":"http://x/y",`+strings.Join(fields, ",")+`}`)[0].Metadata
	if fit := events.Fit(events.Result{Metadata: m}); len(m) > events.MaxNote || len(m) < events.MaxNote/2 || string(fit.Metadata) != string(m) {
		t.Errorf("%d bytes do not fit", len(m))
	}
	if !strings.HasSuffix(string(m), `"`+events.CutMark+`":true}`) {
		t.Errorf("no mark in %s", m)
	}
}

func TestMessagesAreCutAndHoldNoKey(t *testing.T) {
	e := parse(t, `{"taskUUID":"A","code":"`+strings.Repeat("c", 200)+`","message":"sk-secret `+strings.Repeat("<", 2000)+`"}`)[0].Error
	if e.Fit() != *e || !strings.HasSuffix(e.Message, events.CutMark) {
		t.Errorf("error %+v does not fit", e)
	}
	if strings.Contains(e.Message, "secret") {
		t.Errorf("error %+v", e)
	}
}

func TestCodesHaveTheirClass(t *testing.T) {
	for code, class := range map[string]events.Class{
		"insufficientCredits": events.Quota, "quotaExceeded": events.Quota, "lowBalance": events.Quota,
		"rateLimitExceeded": events.RateLimit, "modelRateLimit": events.RateLimit,
		"providerContentPolicyViolation": events.Safety, "nsfwContentDetected": events.Safety,
		"invalidApiKey": events.Auth, "missingApiKey": events.Auth, "accountSuspended": events.Auth, "tokenExpired": events.Auth, "authTimeout": events.Auth,
		"providerTimeout": events.Timeout, "timeoutProvider": events.Timeout, "timeout": events.Timeout,
		"unknownModel": events.NotFound, "loraNotFound": events.NotFound, "taskFailedOrNotFound": events.NotFound,
		"internalServerError": events.Server, "serviceUnavailable": events.Server,
		"inferenceError": events.Inference, "providerOverloaded": events.Inference, "noAvailableServer": events.Inference,
		"invalidWidth": events.Validation, "unsupportedDuration": events.Validation, "maxLoras": events.Validation, "unknownParameter": events.Validation,
		"brandNew": events.Unknown,
	} {
		if got := parse(t, `{"taskUUID":"A","code":"`+code+`"}`)[0].Error.Class; got != class {
			t.Errorf("%s is %s, want %s", code, got, class)
		}
	}
}
