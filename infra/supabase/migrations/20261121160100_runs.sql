-- Runs, their steps, logs and small documents: for a deployment that keeps them in PostgreSQL (PIPELINE_OPS_STORE).
-- May be applied again: what is there stays. One transaction: psql -1, or the Supabase CLI. See docs/plans.md.

create schema if not exists pipeline_ops;

do $$
begin
  create role pipeline_ops_runner nologin noinherit;
exception
  when duplicate_object or unique_violation then null;
end
$$;
grant usage on schema pipeline_ops to pipeline_ops_runner;
