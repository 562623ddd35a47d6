-- Whether the costs of one pipeline are those of the table it makes them from, to the last digit: by credential, day and
-- currency.
--
-- {table} and {source} are full ids, {cost} and {currency} are of the source: the column that its contract calls
-- `billed` (with the credits that it calls `billed_credits`), and that of its currency. {charges} are the rows that come from it: all (TRUE), or those of usage where further tables make the rest,
-- which sp_consolidate proves. Parameters: @org STRING, @pipeline STRING, @first DATE, @last DATE. The answer is that of values.sql, but
-- what counts is sums. Usage without a price has no cost in the source, and no row here.
WITH both_sides AS (
  SELECT
    x_credential_id AS credential, x_pipeline_run_date AS day, {currency} AS currency, {cost} AS in_source,
    BIGNUMERIC '0' AS in_focus
  FROM `{source}`
  WHERE x_org_slug = @org AND x_pipeline_id = @pipeline AND x_pipeline_run_date BETWEEN @first AND @last

  UNION ALL

  SELECT
    x_credential_id AS credential, x_pipeline_run_date AS day, BillingCurrency AS currency, BIGNUMERIC '0' AS in_source,
    BilledCost AS in_focus
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_id = @pipeline AND x_pipeline_run_date BETWEEN @first AND @last
    AND {charges}
),

compared AS (
  SELECT credential, day, currency, COALESCE(SUM(in_source), 0) AS in_source, COALESCE(SUM(in_focus), 0) AS in_focus
  FROM both_sides
  GROUP BY credential, day, currency
),

failures AS (
  SELECT
    'sums.source' AS name,
    TO_JSON_STRING(STRUCT(
      @pipeline AS pipeline, credential AS credential, day AS day, currency AS currency,
      CAST(in_source AS STRING) AS in_source, CAST(in_focus AS STRING) AS in_focus
    )) AS example
  FROM compared
  WHERE in_source != in_focus
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
