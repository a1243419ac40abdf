package events_test

import (
	"bytes"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
)

// rescue is the first event of the generation that adopts two tasks of fox: slot
// 1 in its second try, and slot 2.
func rescue() events.Requested {
	return events.Requested{
		Model: "runware:101@1", Input: []byte(`{"positivePrompt":"a red fox"}`), ExpectedCount: 2, Provider: "runware",
		Deadline: noon.Add(10 * time.Minute), Digest: events.Digest([]byte("rescue")),
		Tasks: []string{events.TaskID(fox, 1, 2), events.TaskID(fox, 2, 1)}, Rescues: fox,
	}
}

func TestARescueTakesTheTasksOfAnother(t *testing.T) {
	id := events.RescueID(fox)
	g := events.Apply(events.Generation{ID: id, At: noon}, rescue())
	if g.Rescues != fox || events.Public(g).Rescues != fox {
		t.Errorf("rescues %q, and shows %q", g.Rescues, events.Public(g).Rescues)
	}
	for i, s := range g.Slots {
		if !s.Claimed || !s.Accepted || s.Try != 1 || s.Task != rescue().Tasks[i] {
			t.Errorf("slot %d is %+v: nobody would ask about its task", i, s)
		}
	}
	if slot, _, ok := g.SlotOf(events.TaskID(fox, 2, 1)); !ok || slot != 1 {
		t.Errorf("the task of slot 2 is in slot %d, %t", slot, ok)
	}
	if _, _, ok := g.SlotOf(events.TaskID(id, 0, 1)); ok {
		t.Error("a task of its own is taken for one that it adopted")
	}
	g = events.Apply(g, delivered(events.Result{Task: events.TaskID(fox, 1, 2), URL: "https://cdn.example/a"}))
	if g.Slots[0].Result == nil {
		t.Error("the picture of an adopted task is dropped")
	}
}

func TestRescueIDIsOneForEachGeneration(t *testing.T) {
	id := events.RescueID(fox)
	if _, err := events.ParseID(string(id)); err != nil || id[14] != '8' {
		t.Errorf("%s: %v", id, err)
	}
	if id == events.RescueID(id) || id == events.DerivedID("", "rescue/"+string(fox)) {
		t.Errorf("%s is the ID of something else as well", id)
	}
	// A promise: with another derivation, the same rescue could be asked for twice.
	if want := events.ID("9d92ff4a-449f-81da-8025-d38d393c0f43"); id != want {
		t.Errorf("RescueID is %s, was %s", id, want)
	}
}

func TestStoredFormOfARescue(t *testing.T) {
	const name = "testdata/requested-rescue.json"
	got, err := events.Encode(noon, []events.Event{rescue()})
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(name, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.TrimSuffix(want, []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("encoded\n%s\nstored form is\n%s", got, want)
	}
	if _, evs, err := events.Decode(want); err != nil || !reflect.DeepEqual(evs[0], events.Event(rescue())) {
		t.Errorf("decoded %+v, %v", evs, err)
	}
}
