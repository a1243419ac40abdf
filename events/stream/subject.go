package stream

import (
	"fmt"
	"strings"

	"github.com/genstream/genstream/events"
)

// Names as stored. They carry no brand, and programs other than ours read them.
const (
	Name    = "GENERATIONS" // the log
	prefix  = "gen."        // + ID: the subject of one generation
	pattern = "gen.>"

	Requests      = "REQUESTS" // work queue of submissions
	SubmitSubject = "genstream.submit"

	Parked        = "PARKED" // what could not be processed, with the reason
	parkedSubject = "parked."

	Checks       = "CHECKS" // work queue of looks at open generations
	checkSubject = "check." // + ID

	Horizon        = "HORIZON" // where followers may start: the last message of a subject counts
	horizonSubject = "horizon."

	// Inbox is the reply prefix of every client, OwnInbox that of genstream's own
	// connections: a requester, who may read Inbox, cannot read what is not for him.
	completedSubject = "genstream.completed." // + ID: a completion, told once to whoever listens

	Inbox    = "_INBOX."
	OwnInbox = "_GENBOX"

	headerCommit  = "Gen-Commit"  // random, tells our own append from somebody else's
	headerVersion = "Gen-Version" // 1, 2, 3 … of this ID
	headerPrev    = "Gen-Prev"    // stream sequence of this ID's previous commit
	headerTypes   = "Gen-Types"   // event types, comma separated
	headerDigest  = "Gen-Digest"  // chained over this ID's commits
	headerSeen    = "Gen-Seen"    // short digests of the deliveries so far, space separated

	headerReason = "Gen-Reason" // of a parked message
	headerFrom   = "Gen-From"   // stream and sequence that a parked message came from
)

// Answerable says whether a request may be answered on its reply subject. Only
// inboxes are: a reply sent anywhere else would be published with our rights, and
// a reply to gen.<id> would be stored as a commit.
//
// A requester in an account of his own comes with a reply subject that the server
// has put in the place of his (_R_ and a random part); no client can name such a
// one himself (nats-server, client.go, isReservedReply).
func Answerable(reply string) bool {
	return strings.HasPrefix(reply, Inbox) || strings.HasPrefix(reply, OwnInbox+".") || strings.HasPrefix(reply, "_R_.")
}

// Subject is where the commits of id are.
func Subject(id events.ID) string { return prefix + string(id) }

// ParseSubject is the ID whose commits are on the subject.
func ParseSubject(subject string) (events.ID, error) {
	id, ok := strings.CutPrefix(subject, prefix)
	if !ok {
		return "", fmt.Errorf("parse subject: no %s before the ID: %w", prefix, events.ErrID)
	}
	return events.ParseID(id)
}
