package projector_test

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

func TestRowsAreTheGoodOutputs(t *testing.T) {
	id := events.ID("0190a5c1-7a00-7000-8000-000000000001")
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.FixedZone("", 3600))
	utc := time.Date(2026, 1, 2, 2, 4, 5, 678901000, time.UTC)
	cost := int64(1300000)
	full := events.Artifact{
		ID: events.ArtifactID(id, 1), File: events.File{BlobKey: "k", ContentType: "image/png", Size: 3, SHA256: "s"},
		Seed: "7", Cost: &cost, Metadata: json.RawMessage(`{"a":1}`), CreatedAt: at,
	}
	bare := events.Artifact{ID: events.ArtifactID(id, 3), File: events.File{BlobKey: "k3", ContentType: "video/mp4"}, Metadata: json.RawMessage{}, CreatedAt: at}
	g := events.Generation{
		ID: id, Model: "m", Input: json.RawMessage(`{"p":1}`), ExpectedCount: 4, CreatedAt: at, CompletedAt: at,
		Outputs: []events.Output{{Slot: 0, Error: &events.Error{Code: "x"}}, {Slot: 1, Artifact: &full}, {Slot: 2}, {Slot: 3, Artifact: &bare}},
	}
	row, artifacts := projector.Rows(g)
	if want := (catalog.Generation{ID: id, Model: "m", Input: g.Input, ArtifactCount: 2, CreatedAt: utc, CompletedAt: utc}); !reflect.DeepEqual(row, want) {
		t.Errorf("row is %+v, want %+v", row, want)
	}
	want := []catalog.Artifact{
		{ID: full.ID, GenerationID: id, Model: "m", BlobKey: "k", ContentType: "image/png", Seed: "7", Cost: &cost, Metadata: full.Metadata, CreatedAt: utc},
		{ID: bare.ID, GenerationID: id, Model: "m", BlobKey: "k3", ContentType: "video/mp4", CreatedAt: utc},
	}
	if !reflect.DeepEqual(artifacts, want) {
		t.Errorf("artifacts are %+v, want %+v", artifacts, want)
	}
}

func TestFailureHasARowAndNoArtifacts(t *testing.T) {
	g := events.Generation{
		ID: "0190a5c1-7a00-7000-8000-000000000001", Input: json.RawMessage(`{}`), CreatedAt: time.Now(), CompletedAt: time.Now(),
		Outputs: []events.Output{{Error: &events.Error{Code: "x"}}}, Error: &events.Error{Code: "x"},
	}
	if row, artifacts := projector.Rows(g); row.ArtifactCount != 0 || len(artifacts) != 0 {
		t.Errorf("rows are %+v, %+v", row, artifacts)
	}
}

func TestRowsOfAnOpenGenerationPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an open generation has rows")
		}
	}()
	projector.Rows(events.Generation{ID: "0190a5c1-7a00-7000-8000-000000000001", CreatedAt: time.Now()})
}

// The border holds for every completed commit ever written: the golden one.
func TestRowsOfTheGoldenCommit(t *testing.T) {
	body, err := os.ReadFile("../events/testdata/completed.json")
	if err != nil {
		t.Fatal(err)
	}
	_, evs, err := events.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	g := evs[len(evs)-1].(events.Completed).Generation
	row, artifacts := projector.Rows(g)
	if row.ID != g.ID || row.ArtifactCount != g.ArtifactCount() || len(artifacts) != g.ArtifactCount() {
		t.Errorf("%+v has rows %+v, %+v", g, row, artifacts)
	}
}
