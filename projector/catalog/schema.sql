-- One build of the catalog. The SHA-256 of this file, comments included, is the
-- schema hash (PRAGMA user_version): a file with another hash is not migrated
-- but built again from the log. Raise the number when projector.Rows changes what
-- it writes while the tables stay the same.
-- Rows revision: 1

-- A generation that is completed. A row appears once and never changes. Its rowid is
-- the stream sequence of the completing commit: a hint where the log has the rest.
create table generations (
	id             text    not null primary key, -- one generation by ID; tie-break of every list
	model          text    not null,             -- list: what did this model make
	input          text    not null,             -- every list shows it; JSON object as requested
	artifact_count integer not null,             -- list: failures (= 0) and successes (> 0)
	created_at     integer not null,             -- list: newest first, time range; microseconds UTC
	completed_at   integer not null              -- every list shows how long it took; microseconds UTC
) strict;

create index generations_newest on generations (created_at, id);
create index generations_model on generations (model, created_at, id);
-- Failures are few, so two small indexes find them without passing every success.
create index generations_failed on generations (created_at, id) where artifact_count = 0;
create index generations_model_failed on generations (model, created_at, id) where artifact_count = 0;

-- A good output of a completed generation: a file in the bucket.
create table artifacts (
	id            text    not null primary key, -- one artifact by ID; tie-break of every list
	generation_id text    not null,             -- list: what came of this generation
	model         text    not null,             -- list: everything by this model
	blob_key      text    not null,             -- serving the file of an artifact found by ID
	content_type  text    not null,             -- serving it; every list shows what it is
	seed          text,                         -- every list shows it, to make it again; decimal
	cost          integer,                      -- every list shows it; billionths of a dollar
	metadata      text,                         -- every list shows it; JSON
	created_at    integer not null              -- list: newest first, time range; microseconds UTC
) strict;

create index artifacts_newest on artifacts (created_at, id);
create index artifacts_model on artifacts (model, created_at, id);
create index artifacts_generation on artifacts (generation_id, created_at, id);

-- Both tables are only ever added to. What is wrong in them is wrong in the log
-- or in projector.Rows, and is mended there.
create trigger generations_update before update on generations
begin select raise(abort, 'rows of generations never change: mend the cause and rebuild the catalog'); end;
create trigger generations_delete before delete on generations
begin select raise(abort, 'rows of generations are never deleted: mend the cause and rebuild the catalog'); end;
create trigger artifacts_update before update on artifacts
begin select raise(abort, 'rows of artifacts never change: mend the cause and rebuild the catalog'); end;
create trigger artifacts_delete before delete on artifacts
begin select raise(abort, 'rows of artifacts are never deleted: mend the cause and rebuild the catalog'); end;

-- Order of entry. The number is the stream sequence of the completing commit, so
-- that a reader who pages by it goes on unharmed after a rebuild.
create table entries (
	sequence      integer primary key, -- changes: what came after this one
	generation_id text not null        -- changes: which generation that was
) strict;

-- "All generations of user 42, newest first" is one walk of this key; it repeats
-- created_at because a join would have to sort.
create table generation_labels (
	key           text    not null, -- list by label
	value         text    not null, -- list by label
	created_at    integer not null, -- of the generation: newest first, time range
	generation_id text    not null, -- the row to show
	primary key (key, value, created_at, generation_id)
) strict, without rowid;

-- The same for artifacts, which have a created_at of their own.
create table artifact_labels (
	key         text    not null, -- list by label
	value       text    not null, -- list by label
	created_at  integer not null, -- of the artifact: newest first, time range
	artifact_id text    not null, -- the row to show
	primary key (key, value, created_at, artifact_id)
) strict, without rowid;

-- Totals, so that nobody has to count.
create table counters (
	one         integer primary key check (one = 1),
	generations integer not null,
	failed      integer not null, -- generations with artifact_count = 0
	artifacts   integer not null,
	cost        integer not null  -- billionths of a dollar, all artifacts
) strict;
insert into counters values (1, 0, 0, 0, 0);

-- How far in which log this build has read, and a proof that it was that log.
create table position (
	one         integer primary key check (one = 1),
	fingerprint text    not null, -- of the stream
	sequence    integer not null, -- every commit up to it is in here
	digest      text    not null  -- of the commit at that sequence, '' at 0
) strict;
insert into position values (1, '', 0, '');
