-- Whether charges and commitments know each other: what ContractApplied of a charge names is in the table, of the same
-- contract and currency and of that time; and no more is used up than was committed to.
--
-- {table} is the full id of the table of commitments, {dataset} its dataset (project.dataset). Parameters: @org STRING;
-- @first DATE, @last DATE (both included) are days of charges. The answer is that of ../values.sql; what counts is
-- charges, and with `exceeded` commitments. All charges of a commitment have to be in those days to see all that exceeds.
WITH commitments AS (
  SELECT
    ContractCommitmentId AS id, ContractId AS contract, ContractCommitmentPeriodStart AS begins,
    ContractCommitmentPeriodEnd AS ends, BillingCurrency AS currency,
    IF(ContractCommitmentCategory = 'Spend', ContractCommitmentCost, NULL) AS cost
  FROM `{table}`
  WHERE x_org_slug = @org
),

applied AS (
  SELECT
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      JSON_VALUE(part, '$.ContractCommitmentId') AS commitment
    )) AS example,
    ChargeCategory AS category, ChargePeriodStart AS charged, BillingCurrency AS currency,
    JSON_VALUE(part, '$.ContractCommitmentId') AS id, JSON_VALUE(part, '$.ContractId') AS contract,
    SAFE_CAST(JSON_VALUE(part, '$.ContractCommitmentAppliedCost') AS BIGNUMERIC) AS cost
  FROM `{dataset}.cost_data_standard_1_3`
  CROSS JOIN UNNEST(JSON_QUERY_ARRAY(ContractApplied, '$.Elements')) AS part
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last AND ContractApplied IS NOT NULL
),

failures AS (
  SELECT name, example
  FROM (
    SELECT
      applied.example,
      [
        IF(commitments.id IS NULL, 'ContractApplied.unknown', NULL),
        IF(applied.contract != commitments.contract, 'ContractApplied.contract', NULL),
        IF(applied.cost IS NOT NULL AND applied.currency != commitments.currency, 'ContractApplied.currency', NULL),
        IF(applied.charged < commitments.begins OR applied.charged >= commitments.ends, 'ContractApplied.period', NULL)
      ] AS names
    FROM applied
    LEFT JOIN commitments ON commitments.id = applied.id
  )
  CROSS JOIN UNNEST(names) AS name
  WHERE name IS NOT NULL

  UNION ALL

  SELECT
    'ContractApplied.exceeded' AS name,
    TO_JSON_STRING(STRUCT(applied.id AS commitment, ANY_VALUE(commitments.currency) AS currency)) AS example
  FROM applied
  JOIN commitments ON commitments.id = applied.id
  WHERE applied.category = 'Usage'
  GROUP BY applied.id
  HAVING SUM(applied.cost) > MAX(commitments.cost)
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
