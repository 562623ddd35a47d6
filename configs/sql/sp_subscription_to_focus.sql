-- Subscriptions (subscription_cost) to FOCUS 1.3. Fills p_staging; the engine commits from there with lineage. {dataset}
-- is set when it is deployed.
--
-- A charge is a Purchase: it is billed on its day and, because it is for days to come, has no effective cost. Each day
-- that the subscription can be used is Usage: billed nothing, with its part of the charges as effective cost. So
-- SUM(BilledCost) of a billing period is what is invoiced in it, and SUM(EffectiveCost) over a cycle is the same money.
--
-- A cycle longer than a month is a commitment (contract_commitment_1_3): its purchase makes it, its days use it up, and
-- ContractApplied says so. What a purchase buys is the commitment, so that is its resource.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_subscription_to_focus`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_SourceColumns,
      BilledCost, EffectiveCost, ListCost, ContractedCost, PricingCurrencyEffectiveCost,
      ListUnitPrice, ContractedUnitPrice, PricingCurrencyListUnitPrice, PricingCurrencyContractedUnitPrice,
      PricingQuantity, PricingUnit, ConsumedQuantity, ConsumedUnit, PricingCategory,
      BillingCurrency, PricingCurrency,
      BillingAccountId, BillingAccountName, BillingAccountType,
      BillingPeriodStart, BillingPeriodEnd, ChargePeriodStart, ChargePeriodEnd,
      ChargeCategory, ChargeFrequency, ChargeDescription, InvoiceId,
      ProviderName, PublisherName, ServiceProviderName, HostProviderName, InvoiceIssuerName,
      ServiceCategory, ServiceSubcategory, ServiceName,
      SkuId, SkuMeter, SkuPriceId, Tags, ResourceId, ResourceType, ContractApplied
    )
    WITH cost AS (
      SELECT
        *, x_pipeline_run_date AS day, kind = 'day' AS is_day, CONCAT(vendor, '/', service, '/', plan) AS sku,
        CASE kind
          WHEN 'cycle' THEN CONCAT(plan, ', ', CAST(seats AS STRING), ' seats, ', billing_cycle)
          WHEN 'change' THEN CONCAT('Change to ', plan, ', ', CAST(seats AS STRING), ' seats')
          WHEN 'refund' THEN CONCAT('Refund of ', plan, ', unused days')
          ELSE CONCAT(plan, ', ', CAST(seats AS STRING), ' seats, one day')
        END AS described
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
    )
    SELECT
      day, x_org_slug, '1.3', JSON_OBJECT('subscription_id', subscription_id, 'kind', kind),
      billed_cost, effective_cost, list_cost, list_cost, effective_cost,
      unit_price, unit_price, unit_price, unit_price,
      quantity, unit, IF(is_day, CAST(seats AS BIGNUMERIC), NULL), IF(is_day, 'Seats', NULL), 'Standard',
      currency, currency,
      account_id, account_id, 'Account',
      TIMESTAMP(DATE_TRUNC(day, MONTH)), TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)),
      TIMESTAMP(day), TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)),
      IF(is_day, 'Usage', 'Purchase'), IF(kind IN ('cycle', 'day'), 'Recurring', 'One-Time'), described, invoice_id,
      vendor, vendor, vendor, vendor, vendor,
      category, subcategory, service,
      sku, unit, CONCAT(sku, '/', billing_cycle, '/', kind), tags,
      IF(kind = 'cycle', commitment_id, NULL), IF(kind = 'cycle' AND commitment_id IS NOT NULL, 'Subscription', NULL),
      IF(commitment_id IS NULL, NULL, JSON_OBJECT('Elements', JSON_ARRAY(JSON_OBJECT(
        'ContractId', subscription_id, 'ContractCommitmentId', commitment_id,
        'ContractCommitmentAppliedCost', commitment_cost,
        'ContractCommitmentAppliedQuantity', NULL, 'ContractCommitmentAppliedUnit', NULL
      ))))
    FROM cost
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
