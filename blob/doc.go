// Package blob keeps the bytes: the files that providers made, those that requesters
// uploaded for their inputs, and the raw deliveries that are too long for the log. It knows one bucket, which is a
// directory, memory, or anything that gocloud.dev/blob opens, and one way in from
// outside, the [Fetcher].
//
// # Usage
//
//	bucket, err := blob.Open(ctx, "file:///var/lib/genstream/bucket")
//	fetcher := blob.NewFetcher(blob.FetchConfig{Bucket: bucket})
//	file, err := fetcher.Fetch(ctx, url, id, slot) // events.File, for output_succeeded
//	r, err := bucket.Read(ctx, file.BlobKey)       // for http.ServeContent
//
// Every driver but that of directories is linked in by whoever wants it:
//
//	import _ "gocloud.dev/blob/s3blob"
//
// # Names
//
// One file of this package, key.go, knows how keys are made:
//
//	generations/<id>/<slot>-<random>.<ext>      the file of one output
//	generations/<id>/delivery-<random>.json     a delivery as it came
//	inputs/<sha256>                             a file that was uploaded for inputs
//	inputs/<sha256>.<hex>.tmp                   a write of such a file to a directory that was interrupted
//
// The random part has 128 bits. Two writers of the same slot (a worker that was
// believed dead, and its successor) never meet: each writes a file of its own, the
// log takes one of them, and the other is an orphan. A file for inputs is named by
// its content, so that the same file is there once however often it is uploaded;
// one that no request names is an orphan too. Nothing from outside is ever part of
// a key, and no key that [ParseKey] does not accept reaches a driver.
//
// # Guarantees
//
// When [Bucket.Keep], [Bucket.KeepRaw] or [Bucket.KeepInput] returns a key, the file
// is whole and is where the bucket keeps things: on disk for a directory, with every
// folder that leads to it (many files share one sync, see package disk); acknowledged by the server for S3 and its like; nowhere
// for mem://. An event may name it.
//
// When they return an error, the file is not in the bucket. There are two
// exceptions, and gc removes what they leave: the bucket fails so thoroughly that
// even taking back what was written fails (the error says so), and the process is
// killed: a directory then has a part of the file under a key that nobody was told,
// or what [Bucket.Leftovers] lists. A kill in the
// midst of a large upload to S3 leaves parts of an upload that was never completed,
// which no listing shows: give the bucket a lifecycle rule that aborts incomplete
// multipart uploads after a day.
//
// A file never changes and is never written over (but, for an input, with the same
// bytes), so that whoever has its size and SHA-256 from the log can check it at any
// time.
//
// The content type of a file is decided by its first 3 KiB, never by what a
// provider says. What is neither a picture, a video, a sound nor a binary glTF scene
// of the kinds in sniff.go is not kept at all, so that no HTML, SVG or script can ever
// be served from here. A file that is both (a GIF that is also a script) is kept as
// what its beginning is; whoever serves it sends X-Content-Type-Options: nosniff.
//
// # Fetching
//
// The URL of an output comes from outside, and whoever chooses it must not be able
// to reach what only we can reach. [Fetcher] therefore speaks HTTPS only, to ports
// 443 and 80, follows at most three redirects, uses no proxy, and checks each
// address after its name was resolved, as the connection is made: a name that
// resolves differently the second time gains nothing. The hosts of [FetchConfig].AllowHosts
// are the only exception. Networks that reach IPv4 through NAT64 alone are not
// supported, since 64:ff9b::/96 can name any private IPv4 address.
//
// A download is limited in size, in time as a whole, and in how slow it may be;
// nothing is ever decompressed.
//
// # Errors
//
//	ErrBucket     the bucket's fault: the file is as good as before, try again
//	ErrType       the content is of no kind that is kept
//	ErrSize       there is more of it than allowed
//	ErrNotFound   no file of that key
//	ErrKey        not a key that this package has made
//	*FetchError   the download failed, and Code says for how long
//
// Any other error of Keep is the reader's own.
package blob
