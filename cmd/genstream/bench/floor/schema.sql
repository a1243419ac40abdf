-- The same columns and the same lists as the product has: they are the task, not
-- the way of doing it. Without its side tables and guards.
create table generations (
	id             text    not null primary key,
	model          text    not null,
	input          text    not null,
	artifact_count integer not null,
	created_at     integer not null,
	completed_at   integer not null
) strict;
create index generations_newest on generations (created_at, id);
create index generations_model on generations (model, created_at, id);
create index generations_failed on generations (created_at, id) where artifact_count = 0;
create index generations_model_failed on generations (model, created_at, id) where artifact_count = 0;

create table artifacts (
	id            text    not null primary key,
	generation_id text    not null,
	model         text    not null,
	blob_key      text    not null,
	content_type  text    not null,
	seed          text,
	cost          integer,
	metadata      text,
	created_at    integer not null
) strict;
create index artifacts_newest on artifacts (created_at, id);
create index artifacts_model on artifacts (model, created_at, id);
create index artifacts_generation on artifacts (generation_id, created_at, id);
