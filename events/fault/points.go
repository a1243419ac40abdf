package fault

// Point is a place in the code where a fault can be.
type Point struct {
	Name  string
	Where string // in the code
	Finds string // what a restart finds if the process dies there
	// Errors is whether an error is a result that the step can have there.
	Errors bool
	// Start is for what a process does once, while it starts: it has no second hit.
	Start bool
}

// Modes are those that make sense at the point.
func (p Point) Modes() []string {
	if p.Errors {
		return []string{Kill, Panic, Stall, Error}
	}
	return []string{Kill, Panic, Stall}
}

// Points is every point there is, in the order of a generation's way.
func Points() []Point {
	const errs, start = true, true
	return []Point{
		{"log.mark.before", "cmd/genstream: openLog", "streams with nothing in them, and no mark that there is a log: they are found, and marked", !errs, start},
		{"log.mark.after", "cmd/genstream: openLog", "an empty log", !errs, start},
		{"recover.before", "orchestrator: Run", "the log as it was", !errs, start},
		{"recover.after", "orchestrator: Run", "the log as it was: what is known of open generations is read again", !errs, start},
		{"horizon.before", "events/stream: SetHorizon", "the note before, or none: more of the log is read", errs, start},
		{"horizon.after", "events/stream: SetHorizon", "the note", errs, start},

		{"request.before", "orchestrator: accept", "nothing; the requester was told nothing, and asks again", errs, !start},
		{"request.sync.before", "orchestrator: answerable", "the first commit, perhaps; the requester was told nothing, and asks again under the same ID", errs, !start},
		{"request.sync.after", "orchestrator: answerable", "the first commit; the requester was told nothing, and asks again under the same ID", errs, !start},

		{"append.before", "events/stream: send", "the log without the commit: what led to it is decided on again", errs, !start},
		{"append.after", "events/stream: send", "the log with the commit; nothing that rests on it has left the process", errs, !start},
		{"sync.before", "events/stream: gate", "commits that nobody outside was told of; a power cut may take them", errs, !start},
		{"sync.after", "events/stream: gate", "commits on disk that nobody outside was told of", errs, !start},

		{"call.before", "orchestrator: create", "a claim whose call was not made: the provider is asked, knows none of the tasks, and is called under a second claim", errs, !start},
		{"call.after", "orchestrator: create", "a claim whose answer is lost: the provider is asked, and knows the tasks", errs, !start},
		{"look.before", "orchestrator: poll", "the log as it was: the question is asked again", errs, !start},
		{"look.after", "orchestrator: poll", "the log as it was: the question is asked again", errs, !start},

		{"webhook.before", "orchestrator/webhook: take", "nothing of the delivery: the provider was not answered, and sends again", errs, !start},
		{"bring.before", "orchestrator: Bring", "nothing of the delivery: the provider was not answered, and sends again", errs, !start},
		{"bring.after", "orchestrator: Bring", "the delivery in a commit; the provider sends again, and it is known by its digest", errs, !start},
		{"webhook.sync.before", "orchestrator/webhook: known", "the delivery in a commit, perhaps; the provider sends again", errs, !start},
		{"webhook.sync.after", "orchestrator/webhook: known", "the delivery in a commit; the provider sends again, and it is known by its digest", errs, !start},

		{"fetch.before", "orchestrator: fetch", "a result without its file: it is downloaded", errs, !start},
		{"fetch.after", "orchestrator: fetch", "a file that no commit names, an orphan: it is downloaded again under another name", errs, !start},
		{"file.write.before", "blob: putFile", "no file", errs, !start},
		{"file.write.after", "blob: putFile", "a file that no commit names, an orphan; a power cut may empty it", errs, !start},
		{"file.sync.before", "blob: putFile", "a file that no commit names, an orphan; a power cut may empty it", errs, !start},
		{"file.sync.after", "blob: putFile", "a whole file that no commit names, an orphan", errs, !start},
		{"input.rename.before", "blob: putFile", "a temporary file, an orphan: the upload was not answered, and is made again", errs, !start},
		{"input.rename.after", "blob: putFile", "the input's file: the upload is made again, and finds it", errs, !start},

		{"announce.before", "orchestrator: announce", "a completed generation that nobody was told of; GET /v1/changes has it", errs, !start},
		{"announce.after", "orchestrator: announce", "a completed generation", errs, !start},

		{"project.before", "projector: enter", "the catalog as it was: the commits are read again", errs, !start},
		{"project.commit", "projector/catalog: Insert", "a transaction that did not end: the catalog as it was", !errs, !start},
		{"project.after", "projector: enter", "rows and position together: reading goes on after them", errs, !start},
		{"current.rename.before", "projector: writeCurrent", "CURRENT as it was, or none: a build is made again, and files that it does not name are removed", errs, start},
		{"current.rename.after", "projector: writeCurrent", "CURRENT naming the build", errs, start},
	}
}
