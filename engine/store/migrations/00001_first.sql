-- +goose Up

-- Whoever has increased the epoch last may write; and what proves that the key file is the right one.
create table meta (
	one       integer primary key check (one = 1),
	epoch     integer not null,
	key_check blob not null
);

-- What is fragmented, once for all sessions that send it.
create table blocks (
	digest blob primary key, -- SHA-256
	data   blob not null
) without rowid;

create table campaigns (
	number     integer primary key,
	id         text not null unique,
	spec       text not null,  -- JSON, without blocks and keys
	header     text not null,  -- JSON of the state without sessions
	file       blob not null,  -- the campaign file
	schedule   text not null,  -- the plan that was approved
	created_by text not null,
	created_at integer not null
);

create table sessions (
	campaign integer not null references campaigns,
	session  integer not null,
	name     text not null,
	key      blob not null,  -- of the multicast group, sealed
	header   text not null,  -- JSON of the state without devices
	primary key (campaign, session)
) without rowid;

create table devices (
	campaign integer not null references campaigns,
	session  integer not null,
	device   integer not null, -- place in the specification of the session
	state    text not null,    -- JSON
	primary key (campaign, session, device)
) without rowid;

-- What is to be done. A holder whose epoch has passed is dead.
create table jobs (
	id     integer primary key,
	owner  text not null,
	due    integer not null, -- Unix time in nanoseconds
	wait   integer not null, -- nanoseconds
	data   blob not null,
	holder integer
);
create table last_job (
	one integer primary key check (one = 1),
	id  integer not null
);
insert into last_job values (1, 0);

create table groups (
	id        text primary key,
	campaign  text not null,
	session   integer not null,
	next_fcnt integer not null
) without rowid;

create table messages (
	device blob primary key,
	ids    text not null -- JSON
) without rowid;

create table seen (
	seq integer primary key,
	id  blob not null,
	at  integer not null
);

create table entries (
	seq      integer primary key,
	campaign integer not null references campaigns,
	device   blob,
	entry    text not null -- JSON
);
create index entries_campaign on entries (campaign);
create index entries_device on entries (device, campaign) where device is not null;

-- Each hash covers its row and the hash before.
create table audit (
	seq      integer primary key,
	time     text not null,
	author   text not null,
	action   text not null,
	campaign text not null,
	text     text not null,
	hash     blob not null
);
-- +goose StatementBegin
create trigger audit_is_not_changed before update on audit begin select raise(abort, 'the audit log is not changed'); end;
-- +goose StatementEnd
-- +goose StatementBegin
create trigger audit_is_not_deleted before delete on audit begin select raise(abort, 'the audit log is not deleted'); end;
-- +goose StatementEnd

create table tokens (
	id      text primary key,
	name    text not null,
	role    text not null,
	digest  blob not null unique, -- SHA-256 of the token
	created integer not null,
	expires integer, -- null: never
	revoked integer  -- null: not
) without rowid;

-- +goose Down
drop table tokens;
drop table audit;
drop table entries;
drop table seen;
drop table messages;
drop table groups;
drop table last_job;
drop table jobs;
drop table devices;
drop table sessions;
drop table campaigns;
drop table blocks;
drop table meta;
