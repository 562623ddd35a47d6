-- Whether the table has the columns of FOCUS 1.3 (Contract Commitment), each of its type, and no other without an x_.
--
-- {dataset} and {name} are the table's dataset (project.dataset) and name. The answer is that of ../values.sql. Where a
-- column is missing or of another type, the other checks can't be run.
WITH focus AS (
  SELECT SPLIT(pair, ' ')[OFFSET(0)] AS name, SPLIT(pair, ' ')[OFFSET(1)] AS type
  FROM UNNEST([
      'BillingCurrency STRING', 'ContractCommitmentCategory STRING', 'ContractCommitmentCost BIGNUMERIC',
      'ContractCommitmentDescription STRING', 'ContractCommitmentId STRING', 'ContractCommitmentPeriodEnd TIMESTAMP',
      'ContractCommitmentPeriodStart TIMESTAMP', 'ContractCommitmentQuantity BIGNUMERIC',
      'ContractCommitmentType STRING', 'ContractCommitmentUnit STRING', 'ContractId STRING',
      'ContractPeriodEnd TIMESTAMP', 'ContractPeriodStart TIMESTAMP',
      -- Columns of ours that checks read.
      'x_FocusVersion STRING', 'x_org_slug STRING', 'x_pipeline_id STRING', 'x_pipeline_run_date DATE'
  ]) AS pair
),

found AS (
  SELECT column_name AS name, data_type AS type
  FROM `{dataset}`.INFORMATION_SCHEMA.COLUMNS
  WHERE table_name = '{name}'
),

failures AS (
  SELECT 'columns.missing' AS name, TO_JSON_STRING(STRUCT(focus.name AS column, focus.type AS wanted)) AS example
  FROM focus
  LEFT JOIN found ON found.name = focus.name
  WHERE found.name IS NULL

  UNION ALL

  SELECT
    'columns.type', TO_JSON_STRING(STRUCT(focus.name AS column, focus.type AS wanted, found.type AS found))
  FROM focus
  JOIN found ON found.name = focus.name
  WHERE found.type != focus.type

  UNION ALL

  SELECT 'columns.unknown', TO_JSON_STRING(STRUCT(found.name AS column, found.type AS found))
  FROM found
  LEFT JOIN focus ON focus.name = found.name
  WHERE focus.name IS NULL AND NOT STARTS_WITH(found.name, 'x_')
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
