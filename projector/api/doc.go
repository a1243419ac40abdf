// Package api is the HTTP API and the page: one generation from the log, lists
// from the catalog, files from the bucket, and creates passed on to the
// orchestrators over NATS.
//
// # Usage
//
// [New] makes a handler of everything; whoever serves it sets the time-outs of
// reading headers, and no time-out of writing: each answer bounds its own. Config
// says what else there is. The routes, their parameters and every problem they
// answer with stand in /openapi.json, which is made from the code that serves them.
//
// # What is read where
//
// By ID, a generation, its events and its files come from the log, open ones too,
// and what is shown is on disk. Lists, counts and changes come from the catalog,
// which follows the log: the header Gen-Position says how far it had read, and
// min_position waits for it. A list is paged by a cursor, never by a number.
//
// # Creates
//
// A create is a NATS request to genstream.generations.create, its body as it came:
// there is one place that checks requests, and the answers are the same for
// requesters on NATS. What could not be answered in time may have been accepted;
// with an ID or an Idempotency-Key it is sent again without harm. The name of the
// API key goes along as the requester, whose Idempotency-Keys are his own.
//
// # Files for inputs
//
// An upload is written to the bucket here, under its hash, and nowhere else: an
// orchestrator looks there for what an input names. It is streamed through a file in
// the spool, since its hash, and so its name, is known at the end only.
//
// # Streams
//
// Events are followed with server-sent events. The sequence of a commit in the
// stream is the ID of its last event, so that Last-Event-ID resumes at a commit,
// and nothing is kept here for those who come back. Streams and long polls end
// when Config.Stopping does.
//
// # Who may ask
//
// The Host header must name this server (other names may be made to resolve to
// it), a page of another site may change nothing, and with a key file every
// request but the probes bears a key. The page takes the key once, in its address,
// and keeps a cookie made from it, which can only read. There is no CORS.
//
// # Problems
//
// Every error, of unknown paths and wrong methods too, is application/problem+json
// (RFC 9457) with a type of urn:genstream:problem:…, and never repeats what the
// client sent.
//
// # The page
//
// HTML from the server that works without a script. The script follows the events
// and asks for the same page again, so one place knows how things look.
package api
