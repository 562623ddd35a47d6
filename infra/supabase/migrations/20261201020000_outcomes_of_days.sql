-- How runs ended is counted in the day of their admission too, as on every other store. Rows of days from before this
-- was so keep their zeros: only the month of a run that ended then knows its outcome.
-- May be applied again. One transaction: psql -1, or the Supabase CLI.

comment on column pipeline_ops.usage.completed is 'Of these: completed.';
comment on column pipeline_ops.usage.failed is 'Of these: failed.';
comment on column pipeline_ops.usage.cancelled is 'Of these: cancelled.';
