-- Whether periods run forwards, end before the next moment begins, and do not overlap; and whether a row stands on the
-- day of its charge. Placeholders, parameters and answer as in values.sql; of what overlaps, each later one counts.
WITH charges AS (
  SELECT
    *,
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      SubAccountId AS sub_account, ResourceId AS resource, SkuPriceId AS sku_price, ChargeCategory AS category
    )) AS example
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
),

billing_periods AS (
  SELECT
    BillingPeriodStart,
    MAX(BillingPeriodEnd) OVER (
      PARTITION BY InvoiceIssuerName, BillingAccountId ORDER BY BillingPeriodStart, BillingPeriodEnd
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS busy_until,
    TO_JSON_STRING(STRUCT(
      InvoiceIssuerName AS issuer, BillingAccountId AS account, BillingPeriodStart AS period_start,
      BillingPeriodEnd AS period_end
    )) AS example
  FROM (SELECT DISTINCT InvoiceIssuerName, BillingAccountId, BillingPeriodStart, BillingPeriodEnd FROM charges)
),

-- What one resource is charged for by one meter, hour by hour or day by day, but not both for the same time.
charge_periods AS (
  SELECT
    ChargePeriodStart,
    MAX(ChargePeriodEnd) OVER (
      PARTITION BY
        x_pipeline_id, BillingAccountId, SubAccountId, ResourceId, SkuPriceId, CommitmentDiscountId,
        CommitmentDiscountStatus
      ORDER BY ChargePeriodStart, ChargePeriodEnd
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS busy_until,
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, BillingAccountId AS account, SubAccountId AS sub_account, ResourceId AS resource,
      SkuPriceId AS sku_price, ChargePeriodStart AS period_start, ChargePeriodEnd AS period_end
    )) AS example
  FROM (
    SELECT DISTINCT
      x_pipeline_id, BillingAccountId, SubAccountId, ResourceId, SkuPriceId, CommitmentDiscountId,
      CommitmentDiscountStatus, ChargePeriodStart, ChargePeriodEnd
    FROM charges
    WHERE ChargeCategory = 'Usage' AND ChargeClass IS NULL AND ResourceId IS NOT NULL AND SkuPriceId IS NOT NULL
  )
),

failures AS (
  SELECT name, example
  FROM (
    SELECT
      example,
      [
        IF(ChargePeriodEnd <= ChargePeriodStart, 'ChargePeriod.order', NULL),
        IF(BillingPeriodEnd <= BillingPeriodStart, 'BillingPeriod.order', NULL),
        IF(EXTRACT(SECOND FROM ChargePeriodEnd) = 59, 'ChargePeriod.inclusive_end', NULL),
        IF(
          EXTRACT(SECOND FROM BillingPeriodEnd) = 59
          OR (
            EXTRACT(DAY FROM BillingPeriodStart) = 1
            AND EXTRACT(DAY FROM BillingPeriodEnd) >= 28
            AND EXTRACT(DAY FROM TIMESTAMP_ADD(BillingPeriodEnd, INTERVAL 1 DAY)) = 1
          ),
          'BillingPeriod.inclusive_end', NULL
        ),
        IF(
          ChargeCategory = 'Usage' AND ChargeClass IS NULL
          AND (ChargePeriodStart >= BillingPeriodEnd OR ChargePeriodEnd <= BillingPeriodStart),
          'ChargePeriod.billing_period', NULL
        ),
        IF(DATE(ChargePeriodStart) != x_pipeline_run_date, 'ChargePeriod.day', NULL)
      ] AS names
    FROM charges
  )
  CROSS JOIN UNNEST(names) AS name
  WHERE name IS NOT NULL

  UNION ALL

  SELECT 'BillingPeriod.overlap' AS name, example FROM billing_periods WHERE BillingPeriodStart < busy_until

  UNION ALL

  SELECT 'ChargePeriod.overlap' AS name, example FROM charge_periods WHERE ChargePeriodStart < busy_until
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
