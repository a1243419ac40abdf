// Package events is what happened: the vocabulary of genstream, the fold that
// turns the events of one generation into what is known of it, and the form in
// which they are stored. It decides nothing, does no I/O and imports the standard
// library only, so that it can be read, tested and trusted by itself.
//
// # The life of a generation
//
// Somebody asks for a number of outputs from a model: that promise is the event
// requested. An orchestrator says that it is about to call the provider
// (dispatching), calls, and writes down what the provider said to it (dispatched).
// The provider makes its outputs, each a task of its own, and tells us about them
// in its own time and order, by webhook, in an answer to a question, or at once
// in the answer to the call (delivered). A delivered success is a URL, or a file;
// once that file is in the bucket, the slot ends (output_succeeded). A slot that
// will get no file ends too (output_failed). When every slot has ended, or the
// deadline has passed, the generation is completed, with whatever there is.
//
//	requested ─ dispatching ─ dispatched ─┬─ delivered ─ output_succeeded ─┬─ completed
//	                 ↑    (not now, or     │      └────── output_failed ────┤
//	                 └───── another try) ──┘                                │
//	                                             the deadline ─ output_failed
//
// Events that were decided together are one [Commit], which is in the log as a
// whole or not at all: the last output and the completion are never apart.
//
// # Outputs and artifacts
//
// An output is one slot of a generation, numbered from 0, good or bad. A good
// output has an [Artifact]: a file in the bucket with its size and hash. Outputs
// live in the log; artifacts are what the catalog lists. A [Task] is the
// provider's unit of inference: one try of one slot. Its ID is derived from the
// generation, the slot and the try ([TaskID]), so that a process that has lost
// its memory asks about the tasks that were bought instead of buying new ones.
//
// # The events
//
// The stored name of each event and of its fields is a promise: testdata holds
// one commit of each type ever written, and every later version reads them.
// “Ingress” is the webhook ingress, which needs no fold to append.
//
//	type              fields (? = may be absent)                     appended by        may follow
//	requested         model, input, expected_count, provider,        intake             nothing: it is the first
//	                  deadline, labels?, digest, tasks, rescues?
//	dispatching       attempt, by, until, tasks: [slot, try, id]     intake, with       requested; any event but completed, while
//	                                                                 requested; or      no other claim is unanswered
//	                                                                 the orchestrator
//	dispatched        attempt, accepted?: [slot],                    orchestrator       dispatching with the same attempt, or a
//	                  declined?: [slot, again, error]                                   delivery that came before it; also a later
//	                                                                                    definite word about tasks of that claim
//	delivered         source, digest, results?: [task, one of        ingress,           requested; any event but completed
//	                  url, file and error; seed?, cost?,             orchestrator
//	                  metadata?], raw? or raw_key?
//	output_succeeded  slot, artifact: [id, blob_key, content_type,   orchestrator       delivered, with a success for the slot;
//	                  size, sha256, seed?, cost?, metadata?,                            once for each slot
//	                  created_at]
//	output_failed     slot, error: [code, message, class?]           orchestrator       requested; once for each slot
//	completed         error?, generation (the whole folded record)   orchestrator       the last slot's end; nothing follows it
//
// A generation that names another in rescues adopts its tasks: those of the slots
// that got no artifact, though they may have been made and paid for. It has no
// dispatching, for it buys nothing: the provider is asked once, and what is there
// is fetched. Its ID is [RescueID].
//
// An input names a file that was uploaded as {"$file":"inputs/<sha256>"}, where any
// of its strings could stand ([InputFiles]). The log keeps that form; the provider
// gets an address or the content in its place.
//
// A time is RFC 3339 in UTC with microseconds. A cost is in billionths of a
// dollar, and [Dollars] writes it as a number of dollars. A seed is a decimal
// string, because JavaScript loses it above 2^53. A digest is [Digest]. What is
// not set is absent.
//
// # The fold
//
// [Apply] is total: deliveries come twice, late and in any order, and an event
// that has no place in the fold changes nothing. A success is kept whichever try
// it belongs to, because it was paid for; a failure counts for the present try
// only. A file replaces a URL, a newer URL an older one, and nothing replaces a file.
// No fold shares memory that it changes with the fold before it.
//
// # What always holds
//
// Tests, and genstream verify, name these by number.
//
//	I1   Every request that was acknowledged has exactly one requested.
//	I2   Every accepted generation has exactly one completed: by its deadline and 15 s
//	     (30 s on a cluster) of time in which an orchestrator ran with a writable log.
//	I3   The versions of one ID are 1 to n without a gap.
//	I4   The first event of an ID is requested.
//	I5   Each slot ends at most once: one output_succeeded or one output_failed.
//	I6   Nothing follows completed.
//	I7   artifact_count is the number of good outputs, and of artifact rows.
//	I8   Every row equals the fold of its subject, and every ID completed up to the
//	     position that the catalog states has its row.
//	I9   No row belongs to an ID that is not completed.
//	I10  A row never changes.
//	I11  The file of every artifact is in the bucket, with the size and SHA-256 of the event,
//	     and so is every file that a request names.
//	I12  A catalog that is built again is the same, byte for byte.
//	I13  No file without an event that names it is older than the grace period.
//	I14  Each dispatching is followed by at most one create call, and another try of a
//	     slot by a definite no to the one before it. A rescue has neither.
//	I15  A webhook that was answered 2xx is a delivered, or its generation was completed.
//	I16  No event comes from a forged webhook, or directly from a requester.
//	I17  No 2xx, no reply and no provider call leaves before the commit that it rests on is on disk.
//	I18  After the last fault, whoever follows the log reaches its end.
//	I19  Memory, goroutines and file handles return to what they were.
//	I20  Every subject is one prefix and one ID that ParseID accepts.
//	I21  The fingerprint of the stream goes with every position in it, and they agree.
//	I22  No secret is in an event, a row, a file, a log line, a metric or a trace.
//	I23  Every output that the provider finished, and whose file could be had before the
//	     deadline, ends in output_succeeded.
//	I24  The cost of all artifacts is the provider's bill for them.
//
// # Testing
//
// Run the tests with -update to write testdata anew. Files of types already
// released are never changed, only added to: they are the compatibility promise.
package events
