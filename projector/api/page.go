package api

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/projector/catalog"
)

//go:embed page
var pageFiles embed.FS

// pageSize is how many generations one page shows.
const pageSize = 40

// page registers the page: HTML from the server that works as it is. A script
// follows the events and asks for the same page again, so there is one place
// that knows how anything looks.
func (a *api) page() {
	parse := func(name string) *template.Template {
		return template.Must(template.New("layout.html").Funcs(pageFuncs).ParseFS(pageFiles, "page/layout.html", "page/tiles.html", "page/"+name))
	}
	index, one := parse("index.html"), parse("generation.html")
	a.locked = parse("locked.html")
	a.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		data, err := a.indexData(r)
		a.show(w, r, index, data, err)
	})
	a.mux.HandleFunc("GET /g/{id}", func(w http.ResponseWriter, r *http.Request) {
		data, err := a.generationData(r)
		a.show(w, r, one, data, err)
	})
	a.mux.HandleFunc("GET /assets/{name}", a.asset)
}

// frame is what every page shows around its own.
type frame struct {
	Title     string
	Simulated bool
	Open      bool // the visitor may see the rest
	Counts    catalog.Counts
	Follow    string // where the events are that change this page
	Resume    uint64 // the sequence up to which this page knows them
	Waiting   bool   // something on it is not finished
}

type indexPage struct {
	frame
	Flight      []events.View
	Generations []events.View
	Older       string // cursor
	Later       bool   // this is not the first page
}

// indexData is the newest generations as the log has them: it knows what the
// catalog leaves out, such as why an output failed.
func (a *api) indexData(r *http.Request) (*indexPage, error) {
	f, err := a.frame(r)
	if err != nil {
		return nil, err
	}
	f.Title, f.Follow = "genstream", "/v1/events"
	p := &indexPage{frame: f, Flight: a.inFlight(), Later: r.URL.Query().Has("cursor")}
	list, err := a.cfg.Projector.Current().Generations(r.Context(), catalog.GenerationFilter{Limit: pageSize, After: r.URL.Query().Get("cursor")})
	if err != nil {
		return nil, refused(err)
	}
	p.Older, p.Waiting = list.Next, len(p.Flight) > 0
	p.Generations = make([]events.View, len(list.Generations))
	reads, ctx := errgroup.WithContext(r.Context())
	reads.SetLimit(8)
	for i, row := range list.Generations {
		reads.Go(func() error {
			g, _, err := a.cfg.Log.PeekAt(ctx, row.ID, a.completed(ctx, row.ID))
			p.Generations[i] = events.Public(g)
			return err
		})
	}
	return p, reads.Wait()
}

// frame waits a moment for the catalog to have read what the visitor's script
// has heard of, and counts.
func (a *api) frame(r *http.Request) (frame, error) {
	f := frame{Simulated: a.cfg.Simulated, Open: true}
	if heard, err := strconv.ParseUint(r.URL.Query().Get("position"), 10, 63); err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		_ = a.cfg.Projector.Wait(ctx, heard) // what there is, then
	}
	f.Resume = a.cfg.Projector.Position()
	var err error
	f.Counts, err = a.cfg.Projector.Current().Counts(r.Context())
	return f, err
}

type generationPageData struct {
	frame
	View     events.View
	Timeline []moment
	Took     time.Duration
	Cost     string
}

func (a *api) generationData(r *http.Request) (*generationPageData, error) {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return nil, notFound.because("this is not the address of a generation")
	}
	f, err := a.frame(r)
	if err != nil {
		return nil, err
	}
	done := a.completed(r.Context(), id)
	g, head, err := a.cfg.Log.PeekAt(r.Context(), id, done)
	if err != nil {
		return nil, err
	}
	history, err := a.cfg.Log.HistoryAt(r.Context(), id, done)
	if err != nil {
		return nil, err
	}
	f.Title = events.Cut(promptOf(g.Input), 60) + " · genstream"
	f.Waiting, f.Resume = !g.Done(), head.Sequence
	if f.Waiting {
		f.Follow = "/v1/generations/" + string(id) + "/events"
	}
	p := &generationPageData{frame: f, View: events.Public(g)}
	if p.Timeline, err = timeline(history); err != nil {
		return nil, err
	}
	if g.Done() {
		p.Took = g.CompletedAt.Sub(g.CreatedAt)
	}
	p.Cost = costOf(g)
	return p, nil
}

func costOf(g events.Generation) string {
	var sum int64
	known := false
	for _, o := range g.Outputs {
		if o.Artifact != nil && o.Artifact.Cost != nil {
			sum, known = sum+*o.Artifact.Cost, true
		}
	}
	if !known {
		return ""
	}
	return "$" + events.Dollars(sum).String()
}

func (a *api) show(w http.ResponseWriter, r *http.Request, t *template.Template, data any, err error) {
	if err != nil {
		a.showProblem(w, a.problemOf(r.Context(), "page", err))
		return
	}
	a.render(w, http.StatusOK, t, data)
}

type problemPage struct {
	frame
	Problem *problem
	NoKey   bool
}

// showLocked is the page of a visitor without a key.
func (a *api) showLocked(w http.ResponseWriter, p *problem) {
	p.mark(w.Header())
	a.render(w, p.Code, a.locked, problemPage{frame{Title: "genstream"}, p, true})
}

func (a *api) showProblem(w http.ResponseWriter, p *problem) {
	p.mark(w.Header())
	a.render(w, p.Code, a.locked, problemPage{frame{Title: p.Title + " · genstream", Simulated: a.cfg.Simulated}, p, false})
}

func (a *api) render(w http.ResponseWriter, code int, t *template.Template, data any) {
	var b bytes.Buffer // whole before the first byte leaves: a page is never half an error
	if err := t.Execute(&b, data); err != nil {
		a.log.Error("page not rendered", "error", err)
		internal.because("the cause is in the server's log").write(w)
		return
	}
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the client is gone: nobody to tell
}

// asset serves the style sheet, the script and the icon.
func (a *api) asset(w http.ResponseWriter, r *http.Request) {
	contentType, known := map[string]string{
		"style.css": "text/css; charset=utf-8",
		"live.js":   "text/javascript; charset=utf-8",
		"icon.svg":  "image/svg+xml",
	}[r.PathValue("name")]
	if !known {
		notFound.because("nothing is at this path").write(w)
		return
	}
	body, err := pageFiles.ReadFile("page/" + r.PathValue("name"))
	if err != nil {
		panic(err) // it is part of the program
	}
	set(w.Header(), []string{"Content-Type", contentType, "Cache-Control", "no-cache", "ETag", `"` + events.Digest(body) + `"`})
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// shownOutput is an output with a file, and what it is called where it cannot be seen.
type shownOutput struct {
	Artifact *events.ArtifactView
	Alt      string
	Quiet    bool // it is one of many in the gallery, and stands in a link
}

func tileOf(v events.View, o events.OutputView) shownOutput {
	s := wholeOf(v, o)
	s.Quiet = true
	return s
}

func wholeOf(v events.View, o events.OutputView) shownOutput {
	alt := events.Cut(promptOf(v.Input), 200)
	if v.ExpectedCount > 1 {
		alt += fmt.Sprintf(" (output %d of %d)", o.Slot+1, v.ExpectedCount)
	}
	return shownOutput{Artifact: o.Artifact, Alt: alt}
}

var pageFuncs = template.FuncMap{
	"tile":    tileOf,
	"whole":   wholeOf,
	"prompt":  promptOf,
	"fields":  fieldsOf,
	"dollars": func(n int64) string { return "$" + events.Dollars(n).String() },
	"count":   countOf,
	"media":   func(contentType string) string { kind, _, _ := strings.Cut(contentType, "/"); return kind },
	"bytes":   bytesOf,
	"short":   shortOf,
	"stamp":   func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"clock":   func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") },
	"add":     func(a, b int) int { return a + b },
	"there": func(v events.View) int {
		return countOutputs(v, func(o events.OutputView) bool { return o.Artifact != nil })
	},
	"missed": func(v events.View) int {
		return countOutputs(v, func(o events.OutputView) bool { return o.Error != nil })
	},
	"reason": firstReason,
}

func countOutputs(v events.View, is func(events.OutputView) bool) int {
	n := 0
	for _, o := range v.Outputs {
		if is(o) {
			n++
		}
	}
	return n
}

func firstReason(v events.View) *events.ErrorView {
	if v.Error != nil {
		return v.Error
	}
	for _, o := range v.Outputs {
		if o.Error != nil {
			return o.Error
		}
	}
	return nil
}

// countOf is a number with its noun: 1 artifact, 2 artifacts.
func countOf(n any, noun string) string {
	text := fmt.Sprint(n)
	if text == "1" {
		return "1 " + noun
	}
	return text + " " + noun + "s"
}
