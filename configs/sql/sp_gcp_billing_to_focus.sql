-- Google's billing export (gcp_billing_export) to FOCUS 1.3. Fills p_staging; the engine commits from there with lineage.
-- {dataset} is set when it is deployed.
--
-- Discounts that lower the price of a row's usage (sustained use, commitments, contracts, the free tier, a reseller's
-- margin, and the offsets of fees) are part of its BilledCost. Every other credit, such as a promotion, becomes a row of
-- its own of category Credit, which stands for no further row of the export (x_SourceRows 0). So SUM(BilledCost) =
-- SUM(cost) + SUM(credits), which is what Google invoices.
-- Prices stand where the export has them; a row without is priced as one charge, because no price is invented.
-- A label and a tag of one key: the key is the tag's, and the label's is prefixed with label/. A resource's label is
-- stronger than its project's. Labels of Google's own have a prefix of theirs.
--
-- A row that refers to a subscription and sells a commitment is a Purchase with EffectiveCost 0. The rows whose usage
-- the same subscription covers on that day carry its fee as EffectiveCost, shared out by their discounts. With the newer
-- spend-based model, covered usage has a cost of its own and the fee is offset by it: what is left of the fee, or all of
-- a fee without covered usage, is the unused part, a row of its own with BilledCost 0 (x_SourceRows 0).
CREATE OR REPLACE PROCEDURE `{dataset}.sp_gcp_billing_to_focus`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  -- Without a value:
  --   the export shares no costs out: AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId,
  --     AllocatedResourceName, AllocatedTags
  --   it tells of no capacity reservation and no contract: CapacityReservationId, CapacityReservationStatus,
  --     ContractApplied
  --   it has the month of the invoice, not its number: InvoiceId
  --   it has no properties of a price: SkuPriceDetails
  --   no charge of it is known to be one of GenAI: x_Model, x_TokenType, x_ServiceTier, x_PriceSource, x_PriceDate
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_SourceRows, x_SourceColumns,
      BilledCost, EffectiveCost, PricingCurrencyEffectiveCost, ListCost, ContractedCost,
      ListUnitPrice, ContractedUnitPrice, PricingCurrencyListUnitPrice, PricingCurrencyContractedUnitPrice,
      PricingQuantity, PricingUnit, PricingCategory, ConsumedQuantity, ConsumedUnit,
      BillingCurrency, PricingCurrency,
      BillingAccountId, BillingAccountName, BillingAccountType, SubAccountId, SubAccountName, SubAccountType,
      BillingPeriodStart, BillingPeriodEnd, ChargePeriodStart, ChargePeriodEnd,
      ChargeCategory, ChargeClass, ChargeFrequency, ChargeDescription,
      ProviderName, PublisherName, ServiceProviderName, HostProviderName, InvoiceIssuerName,
      ServiceCategory, ServiceSubcategory, ServiceName, SkuId, SkuMeter, SkuPriceId,
      RegionId, RegionName, AvailabilityZone, ResourceId, ResourceName, ResourceType,
      CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountCategory, CommitmentDiscountType,
      CommitmentDiscountStatus, CommitmentDiscountQuantity, CommitmentDiscountUnit, Tags
    )
    WITH source AS (
      SELECT
        *,
        CASE cost_type
          WHEN 'tax' THEN 'Tax'
          WHEN 'adjustment' THEN 'Adjustment'
          WHEN 'rounding_error' THEN 'Adjustment'
          ELSE 'Usage'
        END AS own_category,
        cost_type NOT IN ('tax', 'adjustment', 'rounding_error') AND subscription_id IS NOT NULL
          AND REGEXP_CONTAINS(LOWER(COALESCE(sku_description, '')), r'^commitment') AS is_fee,
        COALESCE((
          SELECT -SUM(CAST(JSON_VALUE(c, '$.amount') AS BIGNUMERIC)) FROM UNNEST(JSON_QUERY_ARRAY(credits)) AS c
          WHERE JSON_VALUE(c, '$.type') IN ('COMMITTED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT_DOLLAR_BASE')
        ), CAST(0 AS BIGNUMERIC)) AS covered,
        COALESCE((
          SELECT SUM(CAST(JSON_VALUE(c, '$.amount') AS BIGNUMERIC)) FROM UNNEST(JSON_QUERY_ARRAY(credits)) AS c
          WHERE JSON_VALUE(c, '$.type') IN (
            'SUSTAINED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT_DOLLAR_BASE',
            'FEE_UTILIZATION_OFFSET', 'DISCOUNT', 'FREE_TIER', 'RESELLER_MARGIN'
          )
        ), CAST(0 AS BIGNUMERIC)) AS discounts,
        (
          SELECT PARSE_JSON(CONCAT(
            '{', STRING_AGG(CONCAT(TO_JSON_STRING(key), ':', TO_JSON_STRING(value)), ',' ORDER BY key), '}'
          ))
          FROM (
            SELECT key, MAX_BY(value, strength) AS value
            FROM (
              SELECT JSON_VALUE(l, '$.key') AS key, COALESCE(JSON_VALUE(l, '$.value'), '') AS value, strength
              FROM UNNEST(ARRAY_CONCAT(
                COALESCE(JSON_QUERY_ARRAY(system_labels), []),
                COALESCE(JSON_QUERY_ARRAY(project_labels), []),
                COALESCE(JSON_QUERY_ARRAY(labels), []),
                COALESCE(JSON_QUERY_ARRAY(tags), [])
              )) AS l WITH OFFSET AS strength
              UNION ALL
              SELECT CONCAT('label/', JSON_VALUE(l, '$.key')) AS key, COALESCE(JSON_VALUE(l, '$.value'), '') AS value, 0 AS strength
              FROM UNNEST(COALESCE(JSON_QUERY_ARRAY(labels), [])) AS l
              WHERE JSON_VALUE(l, '$.key') IN (
                SELECT JSON_VALUE(t, '$.key') FROM UNNEST(COALESCE(JSON_QUERY_ARRAY(tags), [])) AS t
              )
            )
            GROUP BY key
          )
        ) AS all_tags,
        COALESCE(
          DATE(CAST(SUBSTR(invoice_month, 1, 4) AS INT64), CAST(SUBSTR(invoice_month, 5, 2) AS INT64), 1),
          DATE_TRUNC(DATE(usage_start_time), MONTH)
        ) AS period,
        COALESCE(sku_id, service_id, 'unknown') AS sku,
        COALESCE(resource_global_name, resource_name) AS resource,
        COALESCE(region, location) AS place
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
    ),
    matched AS (  -- what a subscription's fees of a day cost, and what its discounts of that day take off
      SELECT
        *,
        IF(is_fee, cost + discounts, 0) AS fee,
        SUM(IF(is_fee, cost + discounts, 0)) OVER (PARTITION BY subscription_id, x_pipeline_run_date, currency) AS fees,
        SUM(IF(is_fee, 0, covered)) OVER (PARTITION BY subscription_id, x_pipeline_run_date, currency) AS all_covered
      FROM source
    ),
    charge AS (  -- of each row the charge itself (JSON null), and its credits that are no discounts
      SELECT
        matched.*, credit, nth = 0 AS is_own,
        COALESCE(JSON_VALUE(credit, '$.type') = 'x_Unused', FALSE) AS is_unused,
        CASE
          WHEN nth = 0 AND is_fee THEN 'Purchase'
          WHEN nth = 0 THEN own_category
          WHEN JSON_VALUE(credit, '$.type') = 'x_Unused' THEN 'Usage'
          ELSE 'Credit'
        END AS category,
        nth = 0 AND own_category = 'Usage' AS is_usage,
        nth = 0 AND own_category = 'Usage' AND list_price IS NOT NULL AND pricing_quantity IS NOT NULL AS is_priced,
        nth = 0 AND own_category = 'Usage' AND NOT is_fee
          AND (covered > 0 OR COALESCE(consumption_model, 'Default') != 'Default') AS is_covered,
        CASE
          WHEN nth = 0 THEN cost + discounts
          WHEN JSON_VALUE(credit, '$.type') = 'x_Unused' THEN 0
          ELSE CAST(JSON_VALUE(credit, '$.amount') AS BIGNUMERIC)
        END AS billed
      FROM matched
      CROSS JOIN UNNEST(ARRAY_CONCAT(
        [JSON 'null'],
        COALESCE(JSON_QUERY_ARRAY(credits), []),
        IF(fee != 0 AND all_covered = 0, [JSON '{"type": "x_Unused"}'], [])
      )) AS credit WITH OFFSET AS nth
      WHERE nth = 0 OR COALESCE(JSON_VALUE(credit, '$.type'), '') NOT IN (
        'SUSTAINED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT_DOLLAR_BASE',
        'FEE_UTILIZATION_OFFSET', 'DISCOUNT', 'FREE_TIER', 'RESELLER_MARGIN'
      )
    ),
    priced AS (
      SELECT
        *,
        CASE
          WHEN is_priced THEN list_price WHEN is_usage THEN ABS(COALESCE(cost_at_list, cost)) WHEN is_unused THEN fee
        END AS unit_price,
        CASE
          WHEN is_priced THEN COALESCE(default_price, effective_price, list_price) WHEN is_usage THEN ABS(cost)
          WHEN is_unused THEN fee
        END AS contracted_price,
        CASE
          WHEN is_priced THEN pricing_quantity WHEN is_usage THEN CAST(IF(cost < 0, -1, 1) AS BIGNUMERIC)
          WHEN is_unused THEN 1
        END AS quantity,
        CASE
          WHEN is_unused THEN fee
          WHEN is_own AND is_fee THEN 0
          WHEN is_covered AND covered > 0 AND all_covered > 0 AND subscription_id IS NOT NULL
            THEN billed + CAST(fees / NULLIF(all_covered / NULLIF(covered, 0), 0) AS BIGNUMERIC)
          ELSE billed
        END AS effective,
        is_covered OR is_unused OR (is_own AND is_fee) AS is_committed,
        COALESCE(
          subscription_id, consumption_model_id, NULLIF(consumption_model, 'Default'),
          (
            SELECT MAX(JSON_VALUE(c, '$.id')) FROM UNNEST(JSON_QUERY_ARRAY(credits)) AS c
            WHERE JSON_VALUE(c, '$.type') IN ('COMMITTED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT_DOLLAR_BASE')
          ),
          'unknown commitment'
        ) AS commitment,
        -- Resource-based commitments of Compute Engine have such names; others commit to money.
        COALESCE(subscription_id, '') LIKE '%%/commitments/%%' AS commits_usage
      FROM charge
    )
    SELECT
      x_pipeline_run_date,
      x_org_slug,
      '1.3' AS x_FocusVersion,
      IF(is_own, NULL, 0) AS x_SourceRows,
      JSON_STRIP_NULLS(JSON_OBJECT(
        'cost', CAST(cost AS STRING), 'cost_type', cost_type, 'credits', IF(is_own, credits, credit),
        'system_labels', system_labels, 'adjustment_id', adjustment_id, 'adjustment_type', adjustment_type,
        'adjustment_mode', adjustment_mode, 'export_time', CAST(export_time AS STRING),
        'currency_conversion_rate', CAST(currency_conversion_rate AS STRING), 'transaction_type', transaction_type
      )) AS x_SourceColumns,
      billed AS BilledCost,
      effective AS EffectiveCost,
      effective AS PricingCurrencyEffectiveCost,
      CASE
        WHEN is_priced THEN list_cost WHEN is_usage AND cost < 0 THEN -unit_price
        WHEN is_usage THEN unit_price WHEN is_unused THEN fee ELSE billed
      END AS ListCost,
      CASE
        WHEN is_priced THEN COALESCE(default_cost, effective_price_cost, list_cost) WHEN is_usage THEN cost
        WHEN is_unused THEN fee ELSE billed
      END AS ContractedCost,
      unit_price AS ListUnitPrice,
      contracted_price AS ContractedUnitPrice,
      unit_price AS PricingCurrencyListUnitPrice,
      contracted_price AS PricingCurrencyContractedUnitPrice,
      quantity AS PricingQuantity,
      CASE
        WHEN is_priced AND COALESCE(pricing_unit_quantity, 1) NOT IN (0, 1)
          THEN CONCAT(CAST(CAST(pricing_unit_quantity AS INT64) AS STRING), ' ', COALESCE(pricing_unit, 'Count'))
        WHEN is_priced THEN COALESCE(pricing_unit, 'Count')
        WHEN is_usage OR is_unused THEN 'Charges'
      END AS PricingUnit,
      CASE WHEN is_covered OR is_unused THEN 'Committed' WHEN is_usage THEN 'Standard' END AS PricingCategory,
      IF(is_usage AND NOT is_fee, COALESCE(usage_amount, 1), NULL) AS ConsumedQuantity,
      CASE
        WHEN NOT is_usage OR is_fee THEN NULL WHEN usage_amount IS NULL THEN 'Charges' ELSE COALESCE(usage_unit, 'Count')
      END AS ConsumedUnit,
      currency AS BillingCurrency,
      currency AS PricingCurrency,
      billing_account_id AS BillingAccountId,
      billing_account_id AS BillingAccountName,
      'Billing Account' AS BillingAccountType,
      project_id AS SubAccountId,
      IF(project_id IS NULL, NULL, COALESCE(project_name, project_id)) AS SubAccountName,
      IF(project_id IS NULL, NULL, 'Project') AS SubAccountType,
      TIMESTAMP(period) AS BillingPeriodStart,
      TIMESTAMP(DATE_ADD(period, INTERVAL 1 MONTH)) AS BillingPeriodEnd,
      usage_start_time AS ChargePeriodStart,
      IF(
        usage_end_time > usage_start_time, usage_end_time, TIMESTAMP_ADD(usage_start_time, INTERVAL 1 HOUR)
      ) AS ChargePeriodEnd,
      category AS ChargeCategory,
      IF(
        is_own AND adjustment_type IN ('USAGE_CORRECTION', 'PRICE_CORRECTION') AND DATE(usage_start_time) < period,
        'Correction', NULL
      ) AS ChargeClass,
      CASE
        WHEN is_own AND is_fee THEN 'Recurring' WHEN is_usage OR is_unused THEN 'Usage-Based' ELSE 'One-Time'
      END AS ChargeFrequency,
      CASE
        WHEN is_own THEN COALESCE(adjustment_description, sku_description, service_description, cost_type)
        WHEN is_unused THEN CONCAT('Unused part of ', commitment)
        ELSE COALESCE(JSON_VALUE(credit, '$.full_name'), JSON_VALUE(credit, '$.name'), 'Credit')
      END AS ChargeDescription,
      'Google Cloud' AS ProviderName,
      IF(publisher_type = 'PARTNER', COALESCE(seller_name, 'Partner'), 'Google Cloud') AS PublisherName,
      IF(publisher_type = 'PARTNER', COALESCE(seller_name, 'Partner'), 'Google Cloud') AS ServiceProviderName,
      'Google Cloud' AS HostProviderName,
      IF(
        transaction_type = 'THIRD_PARTY_RESELLER', COALESCE(seller_name, 'Google Cloud'), 'Google Cloud'
      ) AS InvoiceIssuerName,
      COALESCE(service_category, 'Other') AS ServiceCategory,
      COALESCE(service_subcategory, 'Other (Other)') AS ServiceSubcategory,
      COALESCE(service_description, 'Google Cloud') AS ServiceName,
      IF(category = 'Tax', NULL, sku) AS SkuId,
      IF(category = 'Tax', NULL, COALESCE(sku_description, sku)) AS SkuMeter,
      CASE
        WHEN is_priced THEN CONCAT(sku, '/', COALESCE(REGEXP_REPLACE(CAST(tier_start_amount AS STRING), r'[.]0*$', ''), '0'))
        WHEN is_usage OR is_unused THEN CONCAT(sku, '/charge')
      END AS SkuPriceId,
      place AS RegionId,
      place AS RegionName,
      zone AS AvailabilityZone,
      resource AS ResourceId,
      IF(resource IS NULL, NULL, COALESCE(resource_name, resource)) AS ResourceName,
      IF(
        resource IS NULL, NULL,
        COALESCE(REGEXP_EXTRACT(resource_global_name, r'/([A-Za-z]+)/[^/]+$'), service_description, 'Resource')
      ) AS ResourceType,
      IF(is_committed, commitment, NULL) AS CommitmentDiscountId,
      IF(
        is_committed, COALESCE(NULLIF(consumption_model, 'Default'), REGEXP_EXTRACT(commitment, r'[^/]+$')), NULL
      ) AS CommitmentDiscountName,
      IF(is_committed, IF(commits_usage, 'Usage', 'Spend'), NULL) AS CommitmentDiscountCategory,
      IF(is_committed, 'Committed use discount', NULL) AS CommitmentDiscountType,
      CASE WHEN is_unused THEN 'Unused' WHEN is_covered THEN 'Used' END AS CommitmentDiscountStatus,
      CASE
        WHEN NOT is_committed THEN NULL WHEN commits_usage THEN COALESCE(pricing_amount, 1) WHEN is_unused THEN fee
        ELSE cost
      END AS CommitmentDiscountQuantity,
      IF(is_committed, IF(commits_usage, COALESCE(pricing_unit, 'Count'), currency), NULL) AS CommitmentDiscountUnit,
      all_tags AS Tags
    FROM priced
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
