// Package stream is the log: one JetStream stream, one subject per generation,
// one message per commit.
//
// # Guarantees
//
// Every append carries the stream sequence of the last commit that its author
// has seen on that subject, so each generation behaves as one single-threaded
// object: of two appends that were decided on the same past, one fails with
// [ErrConflict] and its author reloads and decides again. An append whose answer
// was lost is resolved by looking for its commit ID, never assumed either way.
//
// A commit that Append has returned is on disk, and so is everything that a
// reader of this package is given: [Log.Await] and [Log.Durable] are the one
// place where that is known, and whatever leaves the process passes there.
//
// # Reading
//
// One generation is the last message of its subject, then back by the previous
// sequence that each commit carries: no scan, however large the stream. Decisions
// read from the stream's leader; [Log.Peek] may be stale on a cluster and serves
// readers only. A leader that was cut off from the others goes on answering its own
// clients for some 10 s, until it finds out: a read is what was, never a ground to act
// on by itself. Whoever acts appends first, and that an old leader cannot do.
//
// # One node and several
//
// A single node and a cluster answer some retries differently (with Nats-Msg-Id,
// and with two error codes for one conflict). Those differences end here: no
// message ID is used, and both codes are ErrConflict.
package stream
