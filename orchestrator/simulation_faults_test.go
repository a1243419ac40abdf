package orchestrator

// trouble is one kind of thing that happens to a run.
type trouble int

// The kinds of fault. Those with a rate are drawn; the others come of other
// faults, or are planned. A seed leaves some out and has others four times as often.
const (
	slowAppend trouble = iota
	appendFails
	ackLost
	logFull
	diesBeforeAppend
	diesAfterAppend
	cutAfterAppend
	loadFails
	slowSync
	feedLate
	handedAgain
	workAckLost
	checkLost
	callLost
	callAmbiguous
	callTimedOut
	callBusy
	callAccount
	callRefused
	callUnreachable
	taskRefused
	taskDeclined
	taskSilent
	answerHasResults
	lookFails
	lookSilent
	taskFails
	taskUnsafe
	taskAccount
	taskNever
	hookLost
	hookTwice
	hookLate
	hookPartial
	hookContradicts
	hookAlien
	hookForged
	diesBefore2xx
	fetchBroken
	fetchTooLarge
	fetchTorn
	bucketDown
	diesInFetch
	diesBeforeRows
	diesAfterRows
	conflict
	killed
	powerCut
	commitsCut
	rowsCut
	logOut
	recoverFailed
	redelivered
	horizonNoted
	fileGone
	hookBrought
	hookBeforeAnswer
	hookKnown
	hookAfterEnd
	requestAgain
	requestReused
	submitted
	lateArrival
	kinds
)

// faults are the names of the kinds, and how many in a thousand chances come true.
var faults = [kinds]struct {
	name  string
	often int
}{
	slowAppend:       {"append takes seconds", 10},
	appendFails:      {"append fails, not applied", 10},
	ackLost:          {"append applied, ack lost", 10},
	logFull:          {"log full", 3},
	diesBeforeAppend: {"killed before append", 4},
	diesAfterAppend:  {"killed after append", 6},
	cutAfterAppend:   {"power cut after append", 8},
	loadFails:        {"read of the log fails", 10},
	slowSync:         {"sync takes seconds", 20},
	feedLate:         {"commit delivered late", 20},
	handedAgain:      {"commit handed out again", 20},
	workAckLost:      {"queue's ack lost", 30},
	checkLost:        {"check lost", 60},
	callLost:         {"create call lost", 40},
	callAmbiguous:    {"create call taken, answer lost", 60},
	callTimedOut:     {"create call times out", 20},
	callBusy:         {"429", 50},
	callAccount:      {"account refused", 20},
	callRefused:      {"call refused", 5},
	callUnreachable:  {"provider unreachable", 40},
	taskRefused:      {"slot refused", 20},
	taskDeclined:     {"slot declined", 60},
	taskSilent:       {"slot not answered", 40},
	answerHasResults: {"results in the answer", 150},
	lookFails:        {"question fails", 60},
	lookSilent:       {"question half answered", 60},
	taskFails:        {"task fails, may pass", 80},
	taskUnsafe:       {"task fails for good", 30},
	taskAccount:      {"task fails for the account", 8},
	taskNever:        {"task never ends", 10},
	hookLost:         {"webhook lost", 150},
	hookTwice:        {"webhook twice", 150},
	hookLate:         {"webhook late", 80},
	hookPartial:      {"webhook of several tasks", 300},
	hookContradicts:  {"webhook contradicts", 50},
	hookAlien:        {"webhook of another's task", 20},
	hookForged:       {"webhook forged", 20},
	diesBefore2xx:    {"killed before the webhook's answer", 10},
	fetchBroken:      {"download breaks", 80},
	fetchTooLarge:    {"file too large", 10},
	fetchTorn:        {"file half written", 30},
	bucketDown:       {"bucket down", 30},
	diesInFetch:      {"killed with the file written", 15},
	diesBeforeRows:   {"killed before the rows", 8},
	diesAfterRows:    {"killed after the rows", 8},
	conflict:         {"conflict", 0},
	killed:           {"killed", 0},
	powerCut:         {"power cut", 0},
	commitsCut:       {"commits lost in a power cut", 0},
	rowsCut:          {"rows lost in a power cut", 0},
	logOut:           {"log out for seconds", 0},
	recoverFailed:    {"start failed", 0},
	redelivered:      {"commit not acknowledged in time", 0},
	horizonNoted:     {"horizon noted", 0},
	fileGone:         {"address expired", 0},
	hookBrought:      {"webhook decided on before it is appended", 0},
	hookBeforeAnswer: {"webhook before the create answer", 0},
	hookKnown:        {"webhook known already", 0},
	hookAfterEnd:     {"webhook after completion", 0},
	requestAgain:     {"request repeated", 0},
	requestReused:    {"ID reused for another request", 0},
	submitted:        {"submission", 0},
	lateArrival:      {"call arrives after its caller was killed", 0},
}

// bad draws whether a fault happens now, which it does not in calm weather.
func (s *simulation) bad(f trouble) bool {
	if s.rates[f] == 0 || !s.now.Before(s.calm) || s.rng.IntN(1000) >= s.rates[f] {
		return false
	}
	s.hit(f)
	s.note(nil, "fault: %s", faults[f].name)
	return true
}

func (s *simulation) hit(f trouble) { s.rig.hits[f]++ }
