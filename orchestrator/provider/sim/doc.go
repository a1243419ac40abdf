// Package sim is a simulated provider: an http.Handler that speaks Runware's real
// wire format, so that the demo and the tests go through the real client, real
// webhooks and real downloads. It draws real PNGs, has a price for each, keeps a
// journal of all it does, and misbehaves in every way known from the field.
//
// # Usage
//
//	s, err := sim.New(sim.Config{Seed: 1, BaseURL: func() string { return "http://127.0.0.1:9999" }})
//	defer s.Close()
//	http.Serve(listener, s)
//
// Routes: POST anything is the API; GET /files/<task>.png is an output's file;
// GET /journal is the journal, one JSON object per line (see Entry). Every model
// name of the form source:id@version works, but for those with "unknown" in them.
// An output is always a PNG, at most 512 pixels long, whatever kind of task
// asked for it; numberResults is always 1.
//
// Files that a request gives as input, as data: URIs or by address, leave their
// marks on the picture: a row of blocks made of the SHA-256 of each. Addresses are
// fetched with Config.Inputs only, so that nobody can have the simulator ask where
// he pleases.
//
// # Chance
//
// What befalls a task, or a call, depends on Config.Seed and its own task IDs alone: the
// same generation meets the same fate in whatever order things happen. Config.Faults has
// the rates. Repeated calls with the same tasks throw the dice anew, so that a busy
// provider is not busy for ever.
//
// # Directives
//
// Words in the prompt decide over chance. :k names tasks by their place in the call, from 1,
// as in [[fail:2]] or [[fail:1,3]]; without it all are meant. D is a duration (5s), N a
// number (1 unless given), CODE an error code of Runware's.
//
//	of a create call
//	[[refuse:k CODE]]   refused for good (unsupportedParameter); CODE rateLimitExceeded declines
//	[[busy N]]          the first N calls get 429 and Retry-After: 1
//	[[broken N]]        the first N calls get a 5xx, and nothing is taken
//	[[ambiguous N]]     the first N calls get a 5xx, though the tasks are taken
//	[[stall N]]         the first N calls are never answered, and nothing is taken
//	[[hang N]]          the first N calls are never answered, though the tasks are taken
//	[[slow D]]          the answer comes after D; webhooks may overtake it
//	[[sync]]            the answer comes when the outputs are made, and holds them
//	of a task
//	[[take:k D]]        it is made after D
//	[[fail:k CODE]]     it fails (contentPolicyViolation)
//	[[vague:k]]         getResponse says taskFailedOrNotFound of it, finished or not
//	[[never:k]]         it is taken, and nothing is ever heard of it
//	[[gone:k]]          it is taken, and then not known any more
//	[[nsfw:k]]          the output is flagged
//	of a webhook
//	[[lose:k]]          it is not sent
//	[[late:k D]]        it is sent D after the output is made
//	[[double:k]]        it is sent twice, at once
//	[[flat:k]]          it holds the bare item, without data[] or errors[]
//	of a file
//	[[expire:k D]]      404 after D
//	[[trickle:k D]]     it takes D to come
//	[[cut:k N]]         the first N downloads end in the middle
//	[[endless:k N]]     the first N downloads do not end
//	[[mistype:k]]       the Content-Type is wrong
//	[[heavy:k N]]       it is N MiB larger, by noise that no decoder looks at
//	[[html:k N]]        the first N downloads are a web page
//
// # Money
//
// An output of 1024 x 1024 pixels costs $0.0013, others by their pixels; a
// failed one costs nothing. A task UUID that was taken before is answered with an
// error, and neither made nor billed again.
//
// # Restarts
//
// With Config.Journal the tasks outlive the process: what was not made is made,
// webhooks that were not answered with 2xx are sent, and files are drawn again,
// the same to the last byte. Every line is handed to the operating system before
// what it tells is visible outside; a power cut is not provided for.
package sim
