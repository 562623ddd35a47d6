-- Whether JSON columns have the shape that FOCUS 1.3 gives them. Placeholders, parameters and answer as in values.sql.
--
-- Flat is: once all texts are taken out of it, one pair of braces and no bracket is left.
WITH charges AS (
  SELECT
    *,
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      SubAccountId AS sub_account, ResourceId AS resource, SkuPriceId AS sku_price, ChargeCategory AS category
    )) AS example,
    REGEXP_REPLACE(TO_JSON_STRING(Tags), r'"(?:[^"\\]|\\.)*"', '') AS bare_tags,
    REGEXP_REPLACE(TO_JSON_STRING(AllocatedTags), r'"(?:[^"\\]|\\.)*"', '') AS bare_allocated_tags,
    REGEXP_REPLACE(TO_JSON_STRING(SkuPriceDetails), r'"(?:[^"\\]|\\.)*"', '') AS bare_details
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
),

price_keys AS (
  SELECT example, TRIM(key, '"') AS key
  FROM charges
  CROSS JOIN UNNEST(JSON_KEYS(SkuPriceDetails, 1)) AS key
  WHERE JSON_TYPE(SkuPriceDetails) = 'object'
),

commitments AS (
  SELECT example, ChargeCategory, ResourceId, part, JSON_TYPE(part) = 'object' AS is_object,
    REGEXP_REPLACE(TO_JSON_STRING(part), r'"(?:[^"\\]|\\.)*"', '') AS bare,
    COALESCE(JSON_TYPE(part.ContractId), 'null') AS contract_type,
    COALESCE(JSON_TYPE(part.ContractCommitmentId), 'null') AS id_type,
    COALESCE(JSON_TYPE(part.ContractCommitmentAppliedCost), 'null') AS cost_type,
    COALESCE(JSON_TYPE(part.ContractCommitmentAppliedQuantity), 'null') AS quantity_type,
    COALESCE(JSON_TYPE(part.ContractCommitmentAppliedUnit), 'null') AS unit_type
  FROM charges
  CROSS JOIN UNNEST(JSON_QUERY_ARRAY(ContractApplied, '$.Elements')) AS part
  WHERE ContractApplied IS NOT NULL
),

commitment_keys AS (
  SELECT example, TRIM(key, '"') AS key
  FROM commitments
  CROSS JOIN UNNEST(JSON_KEYS(part, 1)) AS key
  WHERE is_object
),

shares AS (
  SELECT example, part, JSON_TYPE(part) = 'object' AS is_object,
    REGEXP_REPLACE(TO_JSON_STRING(part), r'"(?:[^"\\]|\\.)*"', '') AS bare,
    COALESCE(JSON_TYPE(part.AllocatedRatio), 'null') AS ratio_type,
    COALESCE(JSON_TYPE(part.UsageUnit), 'null') AS unit_type,
    COALESCE(JSON_TYPE(part.UsageQuantity), 'null') AS quantity_type
  FROM charges
  CROSS JOIN UNNEST(JSON_QUERY_ARRAY(AllocatedMethodDetails, '$.Elements')) AS part
  WHERE AllocatedMethodDetails IS NOT NULL
),

share_keys AS (
  SELECT example, TRIM(key, '"') AS key
  FROM shares
  CROSS JOIN UNNEST(JSON_KEYS(part, 1)) AS key
  WHERE is_object
),

failures AS (
  SELECT name, example
  FROM (
    SELECT
      example,
      [
        IF(Tags IS NOT NULL AND NOT REGEXP_CONTAINS(bare_tags, r'^\{[^{\[]*\}$'), 'Tags.flat', NULL),
        IF(
          AllocatedTags IS NOT NULL AND NOT REGEXP_CONTAINS(bare_allocated_tags, r'^\{[^{\[]*\}$'),
          'AllocatedTags.flat', NULL
        ),
        IF(
          SkuPriceDetails IS NOT NULL AND NOT REGEXP_CONTAINS(bare_details, r'^\{[^{\[]*\}$'),
          'SkuPriceDetails.flat', NULL
        ),
        IF(
          ContractApplied IS NOT NULL
          AND COALESCE(JSON_TYPE(JSON_QUERY(ContractApplied, '$.Elements')), '') != 'array',
          'ContractApplied.elements', NULL
        ),
        IF(
          AllocatedMethodDetails IS NOT NULL
          AND COALESCE(JSON_TYPE(JSON_QUERY(AllocatedMethodDetails, '$.Elements')), '') != 'array',
          'AllocatedMethodDetails.elements', NULL
        )
      ] AS names
    FROM charges
  )
  CROSS JOIN UNNEST(names) AS name
  WHERE name IS NOT NULL

  UNION ALL

  SELECT 'SkuPriceDetails.keys' AS name, example
  FROM price_keys
  WHERE NOT STARTS_WITH(key, 'x_') AND key NOT IN (
    'CoreCount', 'DiskMaxIops', 'DiskSpace', 'DiskType', 'GpuCount', 'InstanceSeries', 'InstanceType', 'MemorySize',
    'NetworkMaxIops', 'NetworkMaxThroughput', 'OperatingSystem', 'Redundancy', 'StorageClass'
  )

  UNION ALL

  SELECT name, example
  FROM (
    SELECT
      example,
      [
        IF(NOT is_object OR NOT REGEXP_CONTAINS(bare, r'^\{[^{\[]*\}$'), 'ContractApplied.flat', NULL),
        IF(id_type != 'string' OR contract_type NOT IN ('string', 'null'), 'ContractApplied.ids', NULL),
        IF(
          cost_type NOT IN ('number', 'null') OR quantity_type NOT IN ('number', 'null')
          OR unit_type NOT IN ('string', 'null'),
          'ContractApplied.types', NULL
        ),
        IF(cost_type = 'null' AND quantity_type = 'null', 'ContractApplied.amount', NULL),
        IF((quantity_type = 'null') != (unit_type = 'null'), 'ContractApplied.unit', NULL),
        IF(
          ChargeCategory = 'Purchase'
          AND JSON_VALUE(part, '$.ContractCommitmentId') != COALESCE(ResourceId, ''),
          'ContractApplied.purchase', NULL
        )
      ] AS names
    FROM commitments
  )
  CROSS JOIN UNNEST(names) AS name
  WHERE name IS NOT NULL

  UNION ALL

  SELECT 'ContractApplied.keys' AS name, example
  FROM commitment_keys
  WHERE NOT STARTS_WITH(key, 'x_') AND key NOT IN (
    'ContractId', 'ContractCommitmentId', 'ContractCommitmentAppliedCost', 'ContractCommitmentAppliedQuantity',
    'ContractCommitmentAppliedUnit'
  )

  UNION ALL

  SELECT 'ContractApplied.contracts' AS name, MIN(example) AS example
  FROM commitments
  WHERE is_object AND id_type = 'string'
  GROUP BY JSON_VALUE(part, '$.ContractCommitmentId')
  HAVING COUNT(DISTINCT JSON_VALUE(part, '$.ContractId')) > 1

  UNION ALL

  SELECT name, example
  FROM (
    SELECT
      example,
      [
        IF(NOT is_object OR NOT REGEXP_CONTAINS(bare, r'^\{[^{\[]*\}$'), 'AllocatedMethodDetails.flat', NULL),
        IF(ratio_type != 'number', 'AllocatedMethodDetails.ratio', NULL),
        IF(
          (quantity_type != 'null' AND unit_type = 'null') OR quantity_type NOT IN ('number', 'null')
          OR unit_type NOT IN ('string', 'null'),
          'AllocatedMethodDetails.usage', NULL
        )
      ] AS names
    FROM shares
  )
  CROSS JOIN UNNEST(names) AS name
  WHERE name IS NOT NULL

  UNION ALL

  SELECT 'AllocatedMethodDetails.keys' AS name, example
  FROM share_keys
  WHERE NOT STARTS_WITH(key, 'x_') AND key NOT IN ('AllocatedRatio', 'UsageUnit', 'UsageQuantity')
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
