-- Whether the table has the columns of FOCUS 1.3 (Cost and Usage), each of its type, and no other without an x_.
--
-- {dataset} and {name} are the table's dataset (project.dataset) and name. The answer is that of values.sql. Where a
-- column is missing or of another type, the other checks can't be run. A table with these types can't hold a time
-- without a zone, or an amount with a comma: that is why types are a check.
WITH focus AS (
  SELECT SPLIT(pair, ' ')[OFFSET(0)] AS name, SPLIT(pair, ' ')[OFFSET(1)] AS type
  FROM UNNEST([
      'AllocatedMethodDetails JSON', 'AllocatedMethodId STRING', 'AllocatedResourceId STRING',
      'AllocatedResourceName STRING', 'AllocatedTags JSON', 'AvailabilityZone STRING', 'BilledCost BIGNUMERIC',
      'BillingAccountId STRING', 'BillingAccountName STRING', 'BillingAccountType STRING', 'BillingCurrency STRING',
      'BillingPeriodEnd TIMESTAMP', 'BillingPeriodStart TIMESTAMP', 'CapacityReservationId STRING',
      'CapacityReservationStatus STRING', 'ChargeCategory STRING', 'ChargeClass STRING', 'ChargeDescription STRING',
      'ChargeFrequency STRING', 'ChargePeriodEnd TIMESTAMP', 'ChargePeriodStart TIMESTAMP',
      'CommitmentDiscountCategory STRING', 'CommitmentDiscountId STRING', 'CommitmentDiscountName STRING',
      'CommitmentDiscountQuantity BIGNUMERIC', 'CommitmentDiscountStatus STRING', 'CommitmentDiscountType STRING',
      'CommitmentDiscountUnit STRING', 'ConsumedQuantity BIGNUMERIC', 'ConsumedUnit STRING', 'ContractApplied JSON',
      'ContractedCost BIGNUMERIC', 'ContractedUnitPrice BIGNUMERIC', 'EffectiveCost BIGNUMERIC',
      'HostProviderName STRING', 'InvoiceId STRING', 'InvoiceIssuerName STRING', 'ListCost BIGNUMERIC',
      'ListUnitPrice BIGNUMERIC', 'PricingCategory STRING', 'PricingCurrency STRING',
      'PricingCurrencyContractedUnitPrice BIGNUMERIC', 'PricingCurrencyEffectiveCost BIGNUMERIC',
      'PricingCurrencyListUnitPrice BIGNUMERIC', 'PricingQuantity BIGNUMERIC', 'PricingUnit STRING',
      'ProviderName STRING', 'PublisherName STRING', 'RegionId STRING', 'RegionName STRING', 'ResourceId STRING',
      'ResourceName STRING', 'ResourceType STRING', 'ServiceCategory STRING', 'ServiceName STRING',
      'ServiceProviderName STRING', 'ServiceSubcategory STRING', 'SkuId STRING', 'SkuMeter STRING',
      'SkuPriceDetails JSON', 'SkuPriceId STRING', 'SubAccountId STRING', 'SubAccountName STRING',
      'SubAccountType STRING', 'Tags JSON',
      -- Columns of ours that checks and questions read.
      'x_FocusVersion STRING', 'x_Model STRING', 'x_TokenType STRING', 'x_ServiceTier STRING', 'x_org_slug STRING',
      'x_pipeline_id STRING', 'x_credential_id STRING', 'x_pipeline_run_date DATE', 'x_run_id STRING',
      'x_ingested_at TIMESTAMP', 'x_ingestion_date DATE'
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
