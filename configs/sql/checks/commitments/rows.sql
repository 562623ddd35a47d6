-- Whether each commitment has the values that FOCUS 1.3 demands of it, and is there once. Placeholders, parameters and
-- answer as in ../values.sql; a day is that on which a commitment begins.
WITH commitments AS (
  SELECT
    *,
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_pipeline_run_date AS day, ContractId AS contract, ContractCommitmentId AS commitment
    )) AS example
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
),

failures AS (
  SELECT name, example
  FROM (
    SELECT
      example,
      [
        -- Never empty.
        IF(ContractCommitmentCategory IS NULL, 'ContractCommitmentCategory.missing', NULL),
        IF(ContractCommitmentDescription IS NULL, 'ContractCommitmentDescription.missing', NULL),
        IF(ContractCommitmentId IS NULL, 'ContractCommitmentId.missing', NULL),
        IF(ContractCommitmentPeriodEnd IS NULL, 'ContractCommitmentPeriodEnd.missing', NULL),
        IF(ContractCommitmentPeriodStart IS NULL, 'ContractCommitmentPeriodStart.missing', NULL),
        IF(ContractCommitmentType IS NULL, 'ContractCommitmentType.missing', NULL),
        IF(ContractId IS NULL, 'ContractId.missing', NULL),
        IF(ContractPeriodEnd IS NULL, 'ContractPeriodEnd.missing', NULL),
        IF(ContractPeriodStart IS NULL, 'ContractPeriodStart.missing', NULL),

        -- By what is committed to.
        IF(
          BillingCurrency IS NULL AND (ContractCommitmentCategory = 'Spend' OR ContractCommitmentCost IS NOT NULL),
          'BillingCurrency.missing', NULL
        ),
        IF(
          ContractCommitmentCost IS NULL AND ContractCommitmentCategory = 'Spend', 'ContractCommitmentCost.missing', NULL
        ),
        IF(
          ContractCommitmentQuantity IS NULL AND ContractCommitmentCategory = 'Usage',
          'ContractCommitmentQuantity.missing', NULL
        ),
        IF(
          (ContractCommitmentQuantity IS NULL) != (ContractCommitmentUnit IS NULL), 'ContractCommitmentUnit.pair', NULL
        ),

        -- Allowed values.
        IF(ContractCommitmentCategory NOT IN ('Spend', 'Usage'), 'ContractCommitmentCategory.allowed', NULL),
        IF(NOT REGEXP_CONTAINS(BillingCurrency, r'^[A-Z]{3}$'), 'BillingCurrency.format', NULL),
        IF(ContractCommitmentCost < 0 OR ContractCommitmentQuantity < 0, 'ContractCommitment.negative', NULL),
        IF(
          REGEXP_CONTAINS(
            TO_JSON_STRING([
              BillingCurrency, ContractCommitmentCategory, ContractCommitmentDescription, ContractCommitmentId,
              ContractCommitmentType, ContractCommitmentUnit, ContractId
            ]),
            r'(?i)[\[,]"(?:\s*|null|n/?a|not applicable)"[,\]]' -- a quote within a value is escaped there
          ),
          'text.placeholder', NULL
        ),
        IF(COALESCE(x_FocusVersion, '') != '1.3', 'x_FocusVersion.known', NULL),

        -- Periods.
        IF(ContractCommitmentPeriodEnd <= ContractCommitmentPeriodStart, 'ContractCommitmentPeriod.order', NULL),
        IF(ContractPeriodEnd <= ContractPeriodStart, 'ContractPeriod.order', NULL),
        IF(
          ContractCommitmentPeriodStart < ContractPeriodStart OR ContractCommitmentPeriodEnd > ContractPeriodEnd,
          'ContractPeriod.around', NULL
        ),
        IF(
          EXTRACT(SECOND FROM ContractCommitmentPeriodEnd) = 59 OR EXTRACT(SECOND FROM ContractPeriodEnd) = 59,
          'ContractPeriod.inclusive_end', NULL
        ),
        IF(DATE(ContractCommitmentPeriodStart) != x_pipeline_run_date, 'ContractCommitmentPeriod.day', NULL)
      ] AS names
    FROM commitments
  )
  CROSS JOIN UNNEST(names) AS name
  WHERE name IS NOT NULL

  UNION ALL

  SELECT 'ContractCommitmentId.twice' AS name, MIN(example) AS example
  FROM commitments
  GROUP BY ContractCommitmentId
  HAVING COUNT(*) > 1

  UNION ALL

  SELECT 'ContractCommitmentId.contracts' AS name, MIN(example) AS example
  FROM commitments
  GROUP BY ContractCommitmentId
  HAVING COUNT(DISTINCT ContractId) > 1
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
