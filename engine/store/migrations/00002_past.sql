-- +goose Up

-- Campaigns that have ended and left the engine are answered for from here.
alter table campaigns add column application text not null default '';
alter table campaigns add column request text;            -- by which whoever has asked for it finds it again
alter table campaigns add column progress text;           -- JSON, of a campaign that has left; null: the engine has it
alter table campaigns add column ended_at integer;        -- of a campaign that has left
alter table campaigns add column log_removed_at integer;  -- null: the log is kept
update campaigns set application = coalesce(json_extract(spec, '$.Application'), '');
update campaigns set request = nullif(json_extract(schedule, '$.request_id'), '') where json_valid(schedule);
create index campaigns_request on campaigns (request) where request is not null;

-- In which campaigns a device has been, for its SessionCnt.
alter table devices add column eui blob not null default x'';
update devices set eui = coalesce(unhex(json_extract(state, '$.EUI')), x'');
create index devices_eui on devices (eui);

-- The highest number that an entry ever had: the newest may be removed.
create table last_entry (
	one integer primary key check (one = 1),
	seq integer not null
);
insert into last_entry select 1, coalesce(max(seq), 0) from entries;

-- +goose Down
drop table last_entry;
drop index devices_eui;
alter table devices drop column eui;
drop index campaigns_request;
alter table campaigns drop column log_removed_at;
alter table campaigns drop column ended_at;
alter table campaigns drop column progress;
alter table campaigns drop column request;
alter table campaigns drop column application;
