package sim_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/genstream/genstream/orchestrator/provider/providertest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

func shaOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func dataURI(s string) string {
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(s))
}

// order makes one task with more fields, and returns the answer.
func (w *world) order(n int, more string) (int, string) {
	return w.post(fmt.Sprintf(`[{"taskType":"imageInference","taskUUID":%q,"model":"a:b@c","positivePrompt":"https://x.test/ is no file","seed":5,`+
		`"width":64,"height":64,"deliveryMethod":"async","webhookURL":"http://us.test/hook"%s}]`, uuid(n), more))
}

func TestPictureShowsTheInputFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		elsewhere := providertest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/two.png" {
				http.NotFound(w, r)
				return
			}
			w.Write([]byte("two"))
		}))
		w := newWorld(t, sim.Config{Inputs: elsewhere})
		defer w.close()
		for n, more := range []string{
			``,
			`,"seedImage":"` + dataURI("one") + `"`,
			`,"inputs":{"references":[{"deep":"https://x.test/two.png"},"` + dataURI("one") + `"]}`,
			`,"maskImage":"` + dataURI("one") + `"`, // wherever it stands, the mark is the file's
		} {
			if code, body := w.order(n, more); code != http.StatusOK {
				t.Errorf("order %d: %d %s", n, code, body)
			}
		}
		if code, body := w.order(8, `,"seedImage":"https://x.test/none.png"`); code != http.StatusBadRequest || !strings.Contains(body, "invalidInputFile") {
			t.Errorf("an address without a file: %d %s", code, body)
		}
		if code, body := w.order(9, `,"seedImage":"data:image/png;base64,!!!"`); code != http.StatusBadRequest || !strings.Contains(body, "invalidInputFile") {
			t.Errorf("data that is none: %d %s", code, body)
		}
		quiet()
		want := [][]string{nil, {shaOf("one")}, {shaOf("two"), shaOf("one")}, {shaOf("one")}}
		pictures := make([]image.Image, len(want))
		for n := range want {
			i := slices.IndexFunc(w.journal(), func(e sim.Entry) bool { return e.Kind == sim.KindTaken && e.Task == uuid(n) })
			if got := w.journal()[i].Order.Inputs; !slices.Equal(got, want[n]) {
				t.Errorf("order %d: the journal has inputs %v, want %v", n, got, want[n])
			}
			_, b, err := w.get("http://sim.test/files/" + uuid(n) + ".png")
			if err != nil {
				t.Fatal(err)
			}
			if pictures[n], err = png.Decode(bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
		}
		// The mark of a file is where it was drawn, and the rest of the picture as it was.
		row := func(n, y int) string {
			var s strings.Builder
			for x := range 64 {
				fmt.Fprint(&s, pictures[n].At(x, y))
			}
			return s.String()
		}
		switch {
		case row(1, 62) == row(0, 62):
			t.Error("the input leaves no mark")
		case row(1, 62) != row(3, 62):
			t.Error("the same input leaves another mark")
		case row(1, 62) != row(2, 58):
			t.Error("the second input is not the second row")
		case row(1, 20) != row(0, 20):
			t.Error("the input changes the whole picture")
		}
	})
}

func TestNoAddressIsFetchedUnlessItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{})
		defer w.close()
		if code, body := w.order(1, `,"seedImage":"http://127.0.0.1:1/x"`); code != http.StatusOK {
			t.Errorf("%d %s", code, body)
		}
		quiet()
		for _, e := range w.journal() {
			if e.Kind == sim.KindTaken && !slices.Equal(e.Order.Inputs, []string{shaOf("http://127.0.0.1:1/x")}) {
				t.Errorf("inputs are %v, want the hash of the address", e.Order.Inputs)
			}
		}
	})
}
