// Package projector is the reading side's hand: it follows the log and keeps a
// catalog of what is completed.
//
// # Usage
//
// [New] opens the catalog's folder and can answer at once, from what the last run
// left; [Projector.Run] follows the log until its context ends. Readers take
// [Projector.Current] per request, and [Projector.Wait] before it if they have a
// position that must be in the answer.
//
// # The border
//
// The log has outputs, good and bad; the catalog has artifacts. [Rows] is the only
// function that turns one into the other. It is pure, so a row can be compared
// with the log at any time, and a rebuild is bound to give the same.
//
// # Exactly once
//
// Rows and position are one transaction, and reading starts from the position in
// the catalog, never from an acknowledgement. A crash anywhere loses a transaction
// with its position, or nothing. Only durable commits are read, so no row rests on
// a commit that a power cut could take back.
//
// # Builds
//
// Each build of the catalog is a file of its own name, catalog-<n>.db, and the one
// line of the file CURRENT says which one serves. [Projector.Rebuild] runs the same
// code into a new file while the old one serves, and then writes CURRENT. A file is
// never renamed over another: SQLite would go on in the file that it has open. A
// schema that changed is a rebuild at the next start, a damaged file is set aside
// (.damaged) and built again, and a replica is one more projector with a folder of
// its own. Everything in the folder can be deleted while nothing runs.
//
// What a restart finds: a build that CURRENT does not name is a rebuild that did
// not end, or the build before; both are removed. A CURRENT that names no file is
// a damaged build that was just set aside; a new one begins.
//
// # Another log
//
// Position, fingerprint of the stream and digest of the commit at the position
// stand together. If the log that is followed is not the one that was read, Run
// says so with [ErrDiverged] and stops; it never goes on over the difference.
//
// # Commits that cannot be read
//
// A completing commit that cannot be decoded is handed to Config.Parked and passed
// over, so that it does not stop every other; its generation has no row until the
// cause is mended and the catalog rebuilt, and verify names it.
package projector
