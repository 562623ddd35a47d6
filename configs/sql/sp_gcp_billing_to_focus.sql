-- Google's billing export (gcp_billing_export) to FOCUS 1.3. Fills p_staging; the engine commits from there with lineage.
-- {dataset} is set when it is deployed.
--
-- Discounts that lower the price of a row's usage (sustained use, commitments, contracts, the free tier, a reseller's
-- margin, and the offsets of fees) are part of its BilledCost. Every other credit, such as a promotion, becomes a row of
-- its own of category Credit, which stands for no further row of the export (x_SourceRows 0). So SUM(BilledCost) =
-- SUM(cost) + SUM(credits), which is what Google invoices.
-- Prices stand where the export has them; a row without is priced as one charge, because no price is invented.
-- A label and a tag of one key: the tag is the stronger, and a resource's label is stronger than its project's.
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
            SELECT JSON_VALUE(l, '$.key') AS key, MAX_BY(COALESCE(JSON_VALUE(l, '$.value'), ''), strength) AS value
            FROM UNNEST(ARRAY_CONCAT(
              COALESCE(JSON_QUERY_ARRAY(project_labels), []),
              COALESCE(JSON_QUERY_ARRAY(labels), []),
              COALESCE(JSON_QUERY_ARRAY(tags), [])
            )) AS l WITH OFFSET AS strength
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
    charge AS (  -- of each row the charge itself (JSON null), and its credits that are no discounts
      SELECT
        source.*, credit, nth = 0 AS is_own,
        IF(nth = 0, own_category, 'Credit') AS category,
        nth = 0 AND own_category = 'Usage' AS is_usage,
        nth = 0 AND own_category = 'Usage' AND list_price IS NOT NULL AND pricing_quantity IS NOT NULL AS is_priced,
        nth = 0 AND own_category = 'Usage' AND COALESCE(consumption_model, 'Default') != 'Default' AS is_committed,
        IF(nth = 0, cost + discounts, CAST(JSON_VALUE(credit, '$.amount') AS BIGNUMERIC)) AS billed
      FROM source
      CROSS JOIN UNNEST(ARRAY_CONCAT([JSON 'null'], COALESCE(JSON_QUERY_ARRAY(credits), []))) AS credit WITH OFFSET AS nth
      WHERE nth = 0 OR COALESCE(JSON_VALUE(credit, '$.type'), '') NOT IN (
        'SUSTAINED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT', 'COMMITTED_USAGE_DISCOUNT_DOLLAR_BASE',
        'FEE_UTILIZATION_OFFSET', 'DISCOUNT', 'FREE_TIER', 'RESELLER_MARGIN'
      )
    ),
    priced AS (
      SELECT
        *,
        CASE WHEN is_priced THEN list_price WHEN is_usage THEN ABS(cost) END AS unit_price,
        CASE
          WHEN is_priced THEN COALESCE(default_price, effective_price, list_price) WHEN is_usage THEN ABS(cost)
        END AS contracted_price,
        CASE
          WHEN is_priced THEN pricing_quantity WHEN is_usage THEN CAST(IF(cost < 0, -1, 1) AS BIGNUMERIC)
        END AS quantity
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
      billed AS EffectiveCost,
      billed AS PricingCurrencyEffectiveCost,
      CASE WHEN is_priced THEN list_cost WHEN is_usage THEN cost ELSE billed END AS ListCost,
      CASE
        WHEN is_priced THEN COALESCE(default_cost, effective_price_cost, list_cost) WHEN is_usage THEN cost ELSE billed
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
        WHEN is_usage THEN 'Charges'
      END AS PricingUnit,
      CASE WHEN is_committed THEN 'Committed' WHEN is_usage THEN 'Standard' END AS PricingCategory,
      IF(is_usage, COALESCE(usage_amount, 1), NULL) AS ConsumedQuantity,
      CASE
        WHEN NOT is_usage THEN NULL WHEN usage_amount IS NULL THEN 'Charges' ELSE COALESCE(usage_unit, 'Count')
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
      IF(is_usage, 'Usage-Based', 'One-Time') AS ChargeFrequency,
      IF(
        is_own, COALESCE(adjustment_description, sku_description, service_description, cost_type),
        COALESCE(JSON_VALUE(credit, '$.full_name'), JSON_VALUE(credit, '$.name'), 'Credit')
      ) AS ChargeDescription,
      'Google Cloud' AS ProviderName,
      IF(publisher_type = 'PARTNER', COALESCE(seller_name, 'Partner'), 'Google Cloud') AS PublisherName,
      'Google Cloud' AS ServiceProviderName,
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
        WHEN is_usage THEN CONCAT(sku, '/charge')
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
      IF(
        is_committed, COALESCE(subscription_id, consumption_model_id, consumption_model), NULL
      ) AS CommitmentDiscountId,
      IF(is_committed, consumption_model, NULL) AS CommitmentDiscountName,
      IF(is_committed, 'Spend', NULL) AS CommitmentDiscountCategory,
      IF(is_committed, consumption_model, NULL) AS CommitmentDiscountType,
      IF(is_committed, 'Used', NULL) AS CommitmentDiscountStatus,
      IF(is_committed, cost, NULL) AS CommitmentDiscountQuantity,
      IF(is_committed, currency, NULL) AS CommitmentDiscountUnit,
      all_tags AS Tags
    FROM priced
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
