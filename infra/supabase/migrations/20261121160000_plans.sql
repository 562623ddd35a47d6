-- Plans, their limits, organisations and their subscriptions: what Pipeline Ops asks before it admits a run.
-- May be applied again: what is there stays. One transaction: psql -1, or the Supabase CLI. See docs/plans.md.

create schema if not exists pipeline_ops;
comment on schema pipeline_ops is 'Pipeline Ops. Not among the schemas that the Data API exposes.';

-- Roles are the server's, not the database's: another database may have made it.
do $$
begin
  create role pipeline_ops_reader nologin noinherit;
exception
  when duplicate_object or unique_violation then null;
end
$$;
comment on role pipeline_ops_reader is 'Reads plan limits for Pipeline Ops, and nothing else.';
alter role pipeline_ops_reader set statement_timeout = '5s';

create table if not exists pipeline_ops.plans (
  plan_id text primary key check (plan_id ~ '^[a-z][a-z0-9_]{0,62}$'),
  name text not null check (name <> ''),
  created_at timestamptz not null default now()
);
comment on table pipeline_ops.plans is 'What can be subscribed to.';
comment on column pipeline_ops.plans.plan_id is 'Its name in configurations: lower-case letters, digits, _.';
comment on column pipeline_ops.plans.name is 'Its name for people.';
comment on column pipeline_ops.plans.created_at is 'Since when it exists.';

-- Apart from the plans, so that whoever may rename a plan need not be able to change what it admits.
create table if not exists pipeline_ops.limits (
  plan_id text primary key references pipeline_ops.plans on update cascade on delete cascade,
  daily integer not null check (daily >= 0),
  monthly integer not null check (monthly >= 0),
  concurrent integer not null check (concurrent >= 0),
  money_usd numeric(14, 4) check (money_usd >= 0 and money_usd <> 'NaN'),
  weight integer not null default 1 check (weight between 1 and 1000)
);
comment on table pipeline_ops.limits is 'What a plan admits.';
comment on column pipeline_ops.limits.plan_id is 'The plan.';
comment on column pipeline_ops.limits.daily is 'Runs admitted a UTC day.';
comment on column pipeline_ops.limits.monthly is 'Runs admitted a UTC month.';
comment on column pipeline_ops.limits.concurrent is 'Runs at the same time.';
comment on column pipeline_ops.limits.money_usd is 'US dollars that the runs of a UTC month may cost. Null: no limit.';
comment on column pipeline_ops.limits.weight is 'Its share where organisations wait for slots of the deployment.';

create table if not exists pipeline_ops.organisations (
  org_slug text primary key check (org_slug ~ '^[a-z][a-z0-9_]{1,49}$'),
  name text not null default '',
  created_at timestamptz not null default now()
);
comment on table pipeline_ops.organisations is 'Who runs pipelines.';
comment on column pipeline_ops.organisations.org_slug is 'Its name in paths and datasets. Never given to another.';
comment on column pipeline_ops.organisations.name is 'Its name for people.';
comment on column pipeline_ops.organisations.created_at is 'Since when it exists.';

create table if not exists pipeline_ops.subscriptions (
  subscription_id uuid primary key default gen_random_uuid(),
  org_slug text not null references pipeline_ops.organisations on update restrict on delete cascade,
  -- Not of plans: a plan without limits admits nothing, so nobody can subscribe to it.
  plan_id text not null references pipeline_ops.limits on update cascade on delete restrict,
  status text not null check (status in ('ACTIVE', 'TRIAL', 'PAST_DUE', 'SUSPENDED', 'CANCELLED')),
  started_at timestamptz not null default now(),
  ended_at timestamptz check (ended_at >= started_at)
);
create unique index if not exists subscriptions_current
  on pipeline_ops.subscriptions (org_slug) where ended_at is null;
create index if not exists subscriptions_of_plan on pipeline_ops.subscriptions (plan_id);
comment on table pipeline_ops.subscriptions is 'Who has which plan. Those of the past stay, with their end.';
comment on column pipeline_ops.subscriptions.subscription_id is 'Its id.';
comment on column pipeline_ops.subscriptions.org_slug is 'Whose it is. One at a time: end the old one first.';
comment on column pipeline_ops.subscriptions.plan_id is 'The plan.';
comment on column pipeline_ops.subscriptions.status is 'ACTIVE and TRIAL may run pipelines, the others may not.';
comment on column pipeline_ops.subscriptions.started_at is 'Since when it holds.';
comment on column pipeline_ops.subscriptions.ended_at is 'Since when it holds no more. Null: it holds.';

create table if not exists pipeline_ops.deployment (
  the_one boolean primary key default true check (the_one),
  global_concurrent integer check (global_concurrent >= 0)
);
insert into pipeline_ops.deployment default values on conflict do nothing;
comment on table pipeline_ops.deployment is 'What holds for all organisations together. One row.';
comment on column pipeline_ops.deployment.the_one is 'True: there is no second row.';
comment on column pipeline_ops.deployment.global_concurrent is
  'Runs of all organisations at the same time. Null: no limit.';

-- security_invoker: the view shows what its reader may see, not what its owner may.
create or replace view pipeline_ops.organisation_limits with (security_invoker = true) as
select
  o.org_slug,
  coalesce(s.status, 'CANCELLED') as status,
  coalesce(l.daily, 0) as daily,
  coalesce(l.monthly, 0) as monthly,
  coalesce(l.concurrent, 0) as concurrent,
  l.money_usd,
  coalesce(l.weight, 1) as weight,
  d.global_concurrent
from pipeline_ops.organisations o
left join pipeline_ops.deployment d on d.the_one
left join pipeline_ops.subscriptions s on s.org_slug = o.org_slug and s.ended_at is null
left join pipeline_ops.limits l on l.plan_id = s.plan_id;
comment on view pipeline_ops.organisation_limits is
  'One row an organisation: what it may do now. Without a subscription it is CANCELLED, and may read its history.';
comment on column pipeline_ops.organisation_limits.org_slug is 'The organisation.';
comment on column pipeline_ops.organisation_limits.status is 'Its subscription''s status.';
comment on column pipeline_ops.organisation_limits.daily is 'Runs admitted a UTC day.';
comment on column pipeline_ops.organisation_limits.monthly is 'Runs admitted a UTC month.';
comment on column pipeline_ops.organisation_limits.concurrent is 'Runs at the same time.';
comment on column pipeline_ops.organisation_limits.money_usd is 'US dollars a UTC month. Null: no limit.';
comment on column pipeline_ops.organisation_limits.weight is 'Its share of waiting organisations'' turns.';
comment on column pipeline_ops.organisation_limits.global_concurrent is
  'Runs of all organisations at the same time. Null: no limit.';

alter table pipeline_ops.plans enable row level security;
alter table pipeline_ops.limits enable row level security;
alter table pipeline_ops.organisations enable row level security;
alter table pipeline_ops.subscriptions enable row level security;
alter table pipeline_ops.deployment enable row level security;

-- Nobody but the reader has a policy: Supabase's anon and authenticated see no row even if somebody grants them a table.
drop policy if exists read_limits on pipeline_ops.limits;
create policy read_limits on pipeline_ops.limits for select to pipeline_ops_reader using (true);
drop policy if exists read_organisations on pipeline_ops.organisations;
create policy read_organisations on pipeline_ops.organisations for select to pipeline_ops_reader using (true);
drop policy if exists read_subscriptions on pipeline_ops.subscriptions;
create policy read_subscriptions on pipeline_ops.subscriptions for select to pipeline_ops_reader using (true);
drop policy if exists read_deployment on pipeline_ops.deployment;
create policy read_deployment on pipeline_ops.deployment for select to pipeline_ops_reader using (true);

grant usage on schema pipeline_ops to pipeline_ops_reader;
grant select on pipeline_ops.organisation_limits to pipeline_ops_reader;
-- What the view reads, its reader must be allowed to read: these columns, and not the organisations' names.
grant select on pipeline_ops.limits, pipeline_ops.deployment to pipeline_ops_reader;
grant select (org_slug) on pipeline_ops.organisations to pipeline_ops_reader;
grant select (org_slug, plan_id, status, ended_at) on pipeline_ops.subscriptions to pipeline_ops_reader;

-- On Supabase, the product's backend keeps the tables.
do $$
begin
  if exists (select from pg_roles where rolname = 'service_role') then
    grant usage on schema pipeline_ops to service_role;
    grant select, insert, update, delete
      on pipeline_ops.plans, pipeline_ops.limits, pipeline_ops.organisations, pipeline_ops.subscriptions,
        pipeline_ops.deployment
      to service_role;
    grant select on pipeline_ops.organisation_limits to service_role;
  end if;
end
$$;
