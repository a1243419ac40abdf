package events_test

import (
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
)

func TestDollarsAreExact(t *testing.T) {
	for _, c := range []struct {
		billionths int64
		want       string
	}{
		{0, "0"},
		{1, "0.000000001"},
		{10, "0.00000001"},
		{600_000, "0.0006"},
		{100_000_000, "0.1"},
		{999_999_999, "0.999999999"},
		{1_000_000_000, "1"},
		{1_000_000_001, "1.000000001"},
		{12_340_000_000, "12.34"},
		{100_000_000_000, "100"},
		{9_007_199_254_740_993, "9007199.254740993"}, // 2^53+1: a float64 would lose the last digit
		{math.MaxInt64, "9223372036.854775807"},
		{-1, "-0.000000001"},
		{-1_500_000_000, "-1.5"},
		{math.MinInt64, "-9223372036.854775808"},
	} {
		got := events.Dollars(c.billionths)
		if string(got) != c.want {
			t.Errorf("Dollars(%d) = %s, want %s", c.billionths, got, c.want)
		}
		back, ok := new(big.Rat).SetString(string(got))
		if !ok || back.Cmp(big.NewRat(c.billionths, 1e9)) != 0 {
			t.Errorf("Dollars(%d) = %s is not that many billionths", c.billionths, got)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("Dollars(%d) = %s is no JSON number", c.billionths, got)
		}
	}
}

func TestPublicLeavesOutWhatIsNotSet(t *testing.T) {
	g := asked(2)
	body, err := json.Marshal(events.Public(g))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + string(fox) + `","model":"runware:101@1","input":{"positivePrompt":"a red fox"},"provider":"sim",` +
		`"expected_count":2,"created_at":"2026-07-01T12:00:00Z","outputs":[{"slot":0},{"slot":1}]}`
	if string(body) != want {
		t.Errorf("public form is\n%s\nwant\n%s", body, want)
	}
}

func TestPublicShowsNothingThatOnlyADecisionNeeds(t *testing.T) {
	cost := int64(1_500_000)
	g := fold(asked(2),
		events.OutputSucceeded{Slot: 0, Artifact: events.Artifact{
			ID: events.ArtifactID(fox, 0), Seed: "18446744073709551615", Cost: &cost,
			File: events.File{BlobKey: "generations/x/0-y.png", ContentType: "image/png", Size: 7, SHA256: "ab"},
		}},
		events.OutputFailed{Slot: 1, Error: events.Error{Code: "nsfw", Message: "withheld", Class: events.Safety}},
		events.Completed{})
	body, err := json.Marshal(events.Public(g))
	if err != nil {
		t.Fatal(err)
	}
	want := `"outputs":[{"slot":0,"artifact":{"id":"` + string(fox) + `-0","blob_key":"generations/x/0-y.png","content_type":"image/png",` +
		`"size":7,"sha256":"ab","seed":"18446744073709551615","cost":0.0015,"url":"/v1/artifacts/` + string(fox) + `-0/content"}},` +
		`{"slot":1,"error":{"code":"nsfw","message":"withheld"}}]}`
	if !strings.HasSuffix(string(body), want) {
		t.Errorf("public form is\n%s\nwant at its end\n%s", body, want)
	}
}
