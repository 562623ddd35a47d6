-- Whether the decimals of each amount can be trusted. Placeholders, parameters and answer as in values.sql; also
-- @decimals INT64: how many the warehouse keeps (38 in BigQuery, 18 in the local emulator).
WITH charges AS (
  SELECT *
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
),

amounts AS (
  SELECT
    -- BigQuery writes 100, the emulator 100.000000000000000000: only zeros after a point may go.
    IF(
      STRPOS(CAST(amount.value AS STRING), '.') > 0,
      RTRIM(RTRIM(CAST(amount.value AS STRING), '0'), '.'),
      CAST(amount.value AS STRING)
    ) AS digits,
    TO_JSON_STRING(STRUCT(
      amount.name AS column, x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day,
      BillingAccountId AS account, SubAccountId AS sub_account, ResourceId AS resource, SkuPriceId AS sku_price,
      ChargeCategory AS category
    )) AS example
  FROM charges
  CROSS JOIN UNNEST([
    STRUCT('BilledCost' AS name, BilledCost AS value),
    STRUCT('CommitmentDiscountQuantity', CommitmentDiscountQuantity),
    STRUCT('ConsumedQuantity', ConsumedQuantity),
    STRUCT('ContractedCost', ContractedCost),
    STRUCT('ContractedUnitPrice', ContractedUnitPrice),
    STRUCT('EffectiveCost', EffectiveCost),
    STRUCT('ListCost', ListCost),
    STRUCT('ListUnitPrice', ListUnitPrice),
    STRUCT('PricingCurrencyContractedUnitPrice', PricingCurrencyContractedUnitPrice),
    STRUCT('PricingCurrencyEffectiveCost', PricingCurrencyEffectiveCost),
    STRUCT('PricingCurrencyListUnitPrice', PricingCurrencyListUnitPrice),
    STRUCT('PricingQuantity', PricingQuantity)
  ]) AS amount
  WHERE amount.value IS NOT NULL
),

failures AS (
  SELECT 'decimals.last_place' AS name, example
  FROM amounts
  WHERE LENGTH(REGEXP_EXTRACT(digits, r'\.(\d+)$')) >= @decimals

  UNION ALL

  -- Nine noughts or nines in a row among the last of many digits: a binary fraction has been through here.
  SELECT 'decimals.float' AS name, example
  FROM amounts
  WHERE
    STRPOS(digits, '.') > 0  -- a whole number may have them
    AND REGEXP_CONTAINS(digits, r'[1-9]\d*\.?\d*?(?:0{9}|9{9})\d+$')
    AND REGEXP_CONTAINS(REGEXP_REPLACE(digits, r'^-?0*\.?0*|\.', ''), r'^\d{15}')
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
