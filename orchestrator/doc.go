// Package orchestrator makes things happen: it accepts requests, calls providers,
// fetches what they made, and completes every generation by its deadline.
//
// # The loop
//
// [Next] decides, and nothing else does: from the fold of a generation's commits,
// what the process remembers, and the time, it says which steps come next. The
// rest of the package is a shell around it:
//
//	commit read from the log, I/O finished, time come
//	   -> fold                (events.Apply)
//	   -> outcomes and Next   (decide: the events of one commit, and steps)
//	   -> append              (stream.Append; a conflict means: fold again, decide again)
//	   -> start the steps     (a create call, a question, a download), each of which ends in an outcome
//
// One goroutine at a time does this for a generation, and waits for no I/O but
// the append.
//
// # The open table
//
// Every open generation is in memory with its fold, and in a heap by the time at
// which it next needs attention. A generation whose webhooks come in time never
// waits in it. The table is rebuilt from the log at start; nothing rests on the
// position of the queue that commits come by, which goes backwards in a power cut.
//
// # Never bought twice
//
// A create call is preceded by a claim in the log, and only the process life
// that won the append of that claim makes the call, once. A claim without an
// answer means that the call may have been made: whoever finds it asks the
// provider about the task IDs, and sends again only after a definite no. Then it
// sends the same task IDs, so that a provider that has them after all answers
// "duplicate", which counts as accepted. A new task ID is made only for a new try,
// after the provider said that the earlier one failed.
//
// A rescue ([Orchestrator.Rescue]) goes further: it is a generation that adopts the
// tasks of one that missed its deadline, and never calls at all. It asks once, and
// fetches what is there.
//
// # Files in inputs
//
// An input names an uploaded file by its hash. That it is in the bucket, and can be
// sent, is looked at before the promise is made; its content, or a signed address,
// takes the place of the name when the call is made, after the claim. What fails
// there was never sent, and is not held against the provider.
//
// # What a restart finds
//
//	requested                     the promise, nothing sent: dispatched as if it were new
//	requested, a rescue           the provider is asked, perhaps again; nothing is ever sent
//	requested, dispatching        the call may have been made: the provider is asked
//	…, dispatched                 results come by webhook, or are asked for
//	…, delivered (a URL)          the file may be in the bucket without a commit that names it:
//	                              it is downloaded again under another key, and gc removes the first
//	…, delivered (a file)         the file is in the bucket: the next commit makes it an artifact
//	…, some output_succeeded      as above for the other slots
//	…, completed                  nothing is left to do
//
// # Who waits where
//
// Generations that may not call yet (a provider's limits, an open breaker) wait
// in the provider's lane in order of arrival, not in the log and not as held
// messages. Errors about the account fail no generation: the breaker opens, what
// waits goes on waiting until its deadline, and one task probes every 30 s.
package orchestrator
