-- Runs, their steps, logs, quota and small documents: for a deployment that keeps them here (PIPELINE_OPS_STORE).
-- May be applied again: what is there stays. One transaction: psql -1, or the Supabase CLI. See docs/plans.md.

create schema if not exists pipeline_ops;

do $$
begin
  create role pipeline_ops_runner nologin noinherit;
exception
  when duplicate_object or unique_violation then null;
end
$$;
comment on role pipeline_ops_runner is 'Keeps runs for Pipeline Ops.';
alter role pipeline_ops_runner set statement_timeout = '10s';
alter role pipeline_ops_runner set idle_in_transaction_session_timeout = '10s';

create table if not exists pipeline_ops.runs (
  run_id text primary key,
  org_slug text not null,
  route text not null,
  status text not null,
  requested_at timestamptz not null,
  wake_at timestamptz,
  version bigint not null,
  body json not null
);
-- "C": run ids are compared as Python compares them.
create index if not exists runs_by_org
  on pipeline_ops.runs (org_slug, requested_at desc, run_id collate "C" desc);
create index if not exists runs_by_wake on pipeline_ops.runs (wake_at) where wake_at is not null;
comment on table pipeline_ops.runs is 'Runs, without their steps.';
comment on column pipeline_ops.runs.run_id is 'Its id.';
comment on column pipeline_ops.runs.org_slug is 'Whose it is.';
comment on column pipeline_ops.runs.route is 'Its pipeline: provider/domain/pipeline.';
comment on column pipeline_ops.runs.status is 'Its state.';
comment on column pipeline_ops.runs.requested_at is 'When it was asked for.';
comment on column pipeline_ops.runs.wake_at is 'When the sweep looks at it. Null: never again.';
comment on column pipeline_ops.runs.version is 'How often it was written.';
comment on column pipeline_ops.runs.body is 'All of it.';

create table if not exists pipeline_ops.steps (
  run_id text not null references pipeline_ops.runs on delete cascade,
  step_id text not null,
  ended boolean not null,
  deadline timestamptz,
  version bigint not null,
  body json not null,
  primary key (run_id, step_id)
);
create index if not exists steps_by_deadline on pipeline_ops.steps (deadline) where deadline is not null;
comment on table pipeline_ops.steps is 'Steps that have begun, or of which more is known than their run says.';
comment on column pipeline_ops.steps.run_id is 'Its run.';
comment on column pipeline_ops.steps.step_id is 'Its name in the run.';
comment on column pipeline_ops.steps.ended is 'Whether it has ended.';
comment on column pipeline_ops.steps.deadline is 'When the sweep looks at it. Null: never.';
comment on column pipeline_ops.steps.version is 'How often it was written.';
comment on column pipeline_ops.steps.body is 'All of it, but for what its run''s pipeline says of it.';

create table if not exists pipeline_ops.changes (
  change_id bigint generated always as identity primary key,
  run_id text not null references pipeline_ops.runs on delete cascade,
  body json not null
);
create index if not exists changes_by_run on pipeline_ops.changes (run_id, change_id);
comment on table pipeline_ops.changes is 'What became of runs and steps: the changes of one commit a row.';
comment on column pipeline_ops.changes.change_id is 'Its place in the order.';
comment on column pipeline_ops.changes.run_id is 'Its run.';
comment on column pipeline_ops.changes.body is 'A list of changes.';

create table if not exists pipeline_ops.logs (
  log_id bigint generated always as identity primary key,
  run_id text not null,
  at timestamptz not null,
  severity text not null,
  step_id text not null,
  attempt integer not null,
  message text not null
);
create index if not exists logs_by_run on pipeline_ops.logs (run_id, log_id);
comment on table pipeline_ops.logs is 'What processors log.';
comment on column pipeline_ops.logs.log_id is 'Its place in the order.';
comment on column pipeline_ops.logs.run_id is 'Its run.';
comment on column pipeline_ops.logs.at is 'When it was logged.';
comment on column pipeline_ops.logs.severity is 'As Cloud Logging has them: INFO, WARNING, ERROR.';
comment on column pipeline_ops.logs.step_id is 'The step. Empty: none.';
comment on column pipeline_ops.logs.attempt is 'The step''s attempt.';
comment on column pipeline_ops.logs.message is 'The line.';

-- Rows that are written all the time have room beside them, so that writing them touches no index.
create table if not exists pipeline_ops.usage (
  org_slug text not null,
  period text not null,
  admitted bigint not null default 0,
  completed bigint not null default 0,
  failed bigint not null default 0,
  cancelled bigint not null default 0,
  spent bigint not null default 0,
  reserved bigint not null default 0,
  primary key (org_slug, period)
) with (fillfactor = 50);
comment on table pipeline_ops.usage is 'What an organisation has used of its limits.';
comment on column pipeline_ops.usage.org_slug is 'The organisation.';
comment on column pipeline_ops.usage.period is 'A UTC day (2026-11-21) or month (2026-11).';
comment on column pipeline_ops.usage.admitted is 'Runs that were admitted in it.';
comment on column pipeline_ops.usage.completed is 'Of these, of a month: completed.';
comment on column pipeline_ops.usage.failed is 'Of these, of a month: failed.';
comment on column pipeline_ops.usage.cancelled is 'Of these, of a month: cancelled.';
comment on column pipeline_ops.usage.spent is 'Of a month: what ended runs have cost, in millionths of a US dollar.';
comment on column pipeline_ops.usage.reserved is 'Of a month: what the others are estimated to, likewise.';

create table if not exists pipeline_ops.reservations (
  org_slug text not null,
  run_id text not null,
  route text not null,
  expires_at timestamptz not null,
  primary key (org_slug, run_id)
);
create index if not exists reservations_by_end on pipeline_ops.reservations (expires_at);
comment on table pipeline_ops.reservations is 'Slots that are held. What counts as live is a row here.';
comment on column pipeline_ops.reservations.org_slug is 'The organisation.';
comment on column pipeline_ops.reservations.run_id is 'The run that holds it.';
comment on column pipeline_ops.reservations.route is 'The run''s pipeline.';
comment on column pipeline_ops.reservations.expires_at is 'When it is free again, whatever happens.';

create table if not exists pipeline_ops.waiting (
  org_slug text not null,
  run_id text collate "C" not null,
  route text not null,
  waits_for text not null,
  backfill boolean not null,
  since timestamptz not null,
  primary key (org_slug, run_id)
);
comment on table pipeline_ops.waiting is 'Runs that wait for a slot.';
comment on column pipeline_ops.waiting.org_slug is 'The organisation.';
comment on column pipeline_ops.waiting.run_id is 'The run.';
comment on column pipeline_ops.waiting.route is 'Its pipeline.';
comment on column pipeline_ops.waiting.waits_for is 'The limit that left no room.';
comment on column pipeline_ops.waiting.backfill is 'Whether live work goes before it.';
comment on column pipeline_ops.waiting.since is 'Since when it waits.';

create table if not exists pipeline_ops.turns (
  org_slug text collate "C" primary key,
  turn bigint not null default 0
) with (fillfactor = 50);
comment on table pipeline_ops.turns is
  'Organisations'' turns in the queue; * is the deployment. Whoever takes of their quota locks the row first.';
comment on column pipeline_ops.turns.org_slug is 'The organisation.';
comment on column pipeline_ops.turns.turn is 'Its virtual time: the lowest goes next.';

create table if not exists pipeline_ops.costs (
  org_slug text not null,
  route text not null,
  cost bigint not null,
  primary key (org_slug, route)
);
comment on table pipeline_ops.costs is 'What an organisation''s last run of a pipeline has cost.';
comment on column pipeline_ops.costs.org_slug is 'The organisation.';
comment on column pipeline_ops.costs.route is 'The pipeline.';
comment on column pipeline_ops.costs.cost is 'Millionths of a US dollar.';

create sequence if not exists pipeline_ops.record_versions;
create table if not exists pipeline_ops.records (
  kind text not null,
  org_slug text not null,
  name text collate "C" not null,
  version bigint not null default nextval('pipeline_ops.record_versions'),
  body json not null,
  primary key (kind, org_slug, name)
);
comment on table pipeline_ops.records is 'Small documents: credentials (sealed), API keys (hashed), settings.';
comment on column pipeline_ops.records.kind is 'What it is.';
comment on column pipeline_ops.records.org_slug is 'Whose it is.';
comment on column pipeline_ops.records.name is 'Its name among those.';
comment on column pipeline_ops.records.version is 'Another one each time it is written. None is given twice.';
comment on column pipeline_ops.records.body is 'The document.';

do $$
declare
  name text;
begin
  foreach name in array array[
    'runs', 'steps', 'changes', 'logs', 'usage', 'reservations', 'waiting', 'turns', 'costs', 'records'
  ] loop
    execute format('alter table pipeline_ops.%I enable row level security', name);
    execute format('drop policy if exists keep on pipeline_ops.%I', name);
    execute format(
      'create policy keep on pipeline_ops.%I to pipeline_ops_runner using (true) with check (true)', name
    );
    execute format('grant select, insert, update, delete on pipeline_ops.%I to pipeline_ops_runner', name);
  end loop;
end
$$;
grant usage on schema pipeline_ops to pipeline_ops_runner;
grant usage on sequence pipeline_ops.record_versions to pipeline_ops_runner;
