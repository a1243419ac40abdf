// Package catalog is one build of the catalog: an SQLite file with the rows of
// every completed generation up to a position in the log.
//
// # Usage
//
// [Create] makes a new file, [Open] opens one for its single writer and any
// number of readers, [OpenReader] for readers only. [Catalog.Insert] adds completed
// generations; everything else is a query. Which file serves is not known here
// but in package projector.
//
// # Queries
//
// [Reader.Generations] and [Reader.Artifacts] are lists: newest first by
// (created_at, ID), paged by a cursor and never by an offset, so that page 1,000
// costs what page 1 costs and stands still while new rows arrive. Every
// combination of filters has one plan, pinned with INDEXED BY and held by a test:
// a search in an index that is already in the order of the list, so no table is
// scanned and nothing is sorted. [Reader.Changes] is the order of entry,
// [Reader.Counts] the totals. A [Snapshot] is all of it at one position.
//
// # Guarantees
//
// The rows of a batch, what stands beside them (order of entry, labels, totals)
// and the position are one transaction. What is at or below the position is never
// added again, and an ID that has a row never gets another, so reading any part of
// the log twice changes nothing. Rows of generations and artifacts never change:
// triggers refuse it. Nothing here is the truth: a lost or damaged file is built
// again from the log, and [Snapshot.Dump] of both is the same, byte for byte.
//
// # Power loss
//
// SQLite runs with synchronous=NORMAL: a power cut may take the newest
// transactions, and takes their position with them, so they are read again.
//
// A build that nobody reads yet is filled without a journal and without syncs
// ([Catalog.Unsafe]), and synced once before it serves ([Catalog.Settle]).
package catalog
