-- Whether rows agree with one another: no row twice, one meaning an id, one class a service. Placeholders, parameters
-- and answer as in values.sql. Of rows that are the same, each beyond the first counts; of an id with two meanings, the
-- id counts once.
WITH charges AS (
  SELECT *
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
),

-- Whole rows, but for how they came here: a bill that two pipelines bring is counted twice.
bare AS (
  SELECT
    x_pipeline_run_date AS day, BillingAccountId AS account, SubAccountId AS sub_account, ResourceId AS resource,
    SkuPriceId AS sku_price, ChargeCategory AS category, TO_JSON_STRING(whole) AS content
  FROM (
    SELECT * EXCEPT (x_pipeline_id, x_credential_id, x_run_id, x_ingested_at, x_ingestion_date) FROM charges
  ) AS whole
),

failures AS (
  SELECT
    'row.twice' AS name,
    COUNT(*) - 1 AS failed,
    MIN(TO_JSON_STRING(STRUCT(
      day AS day, account AS account, sub_account AS sub_account, resource AS resource, sku_price AS sku_price,
      category AS category
    ))) AS example
  FROM bare
  GROUP BY content
  HAVING COUNT(*) > 1

  UNION ALL

  SELECT
    'token_type.twice' AS name,
    COUNT(*) - 1 AS failed,
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      SubAccountId AS sub_account, SkuPriceId AS sku_price, x_TokenType AS token_type
    )) AS example
  FROM charges
  WHERE x_TokenType IS NOT NULL AND ChargeCategory = 'Usage' AND ChargeClass IS NULL
  GROUP BY
    x_pipeline_id, x_credential_id, x_pipeline_run_date, ChargePeriodStart, BillingAccountId, SubAccountId, RegionId,
    ServiceName, x_Model, x_TokenType, x_ServiceTier, SkuPriceId, ListUnitPrice, BillingCurrency
  HAVING COUNT(*) > 1

  UNION ALL

  SELECT
    'ServiceName.categories' AS name, 1 AS failed,
    TO_JSON_STRING(STRUCT(ServiceProviderName AS provider, ServiceName AS service)) AS example
  FROM charges
  GROUP BY ServiceProviderName, ServiceName
  HAVING COUNT(DISTINCT ServiceCategory) > 1

  UNION ALL

  SELECT
    'ServiceName.subcategories' AS name, 1 AS failed,
    TO_JSON_STRING(STRUCT(ServiceProviderName AS provider, ServiceName AS service)) AS example
  FROM charges
  GROUP BY ServiceProviderName, ServiceName
  HAVING COUNT(DISTINCT ServiceSubcategory) > 1

  UNION ALL

  SELECT
    'SkuPriceId.skus' AS name, 1 AS failed,
    TO_JSON_STRING(STRUCT(ServiceProviderName AS provider, SkuPriceId AS sku_price)) AS example
  FROM charges
  WHERE SkuPriceId IS NOT NULL
  GROUP BY ServiceProviderName, SkuPriceId
  HAVING COUNT(DISTINCT SkuId) > 1

  UNION ALL

  SELECT
    'CommitmentDiscountUnit.units' AS name, 1 AS failed,
    TO_JSON_STRING(STRUCT(ServiceProviderName AS provider, CommitmentDiscountId AS commitment)) AS example
  FROM charges
  WHERE CommitmentDiscountId IS NOT NULL
  GROUP BY ServiceProviderName, CommitmentDiscountId
  HAVING COUNT(DISTINCT CommitmentDiscountUnit) > 1
)

SELECT name, SUM(failed) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
