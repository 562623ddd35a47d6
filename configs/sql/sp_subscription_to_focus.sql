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
  -- Without a value:
  --   nothing is shared out: AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId, AllocatedResourceName,
  --     AllocatedTags
  --   a cycle is a contract commitment and no discount: CapacityReservationId, CapacityReservationStatus,
  --     CommitmentDiscountCategory, CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountQuantity,
  --     CommitmentDiscountStatus, CommitmentDiscountType, CommitmentDiscountUnit
  --   seats have no place: AvailabilityZone, RegionId, RegionName
  --   a resource is its commitment, which has an id alone: ResourceName
  --   the file knows one account: SubAccountId, SubAccountName, SubAccountType
  --   a credit is a charge of its own day: ChargeClass
  --   a plan has no properties of a price: SkuPriceDetails
  --   it is no charge of GenAI: x_Model, x_TokenType, x_ServiceTier, x_PriceSource, x_PriceDate
  --   a row of the source is one row here, which is what NULL means: x_SourceRows
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
      day AS x_pipeline_run_date,
      x_org_slug,
      '1.3' AS x_FocusVersion,
      JSON_OBJECT('subscription_id', subscription_id, 'kind', kind) AS x_SourceColumns,
      billed_cost AS BilledCost,
      effective_cost AS EffectiveCost,
      list_cost AS ListCost,
      list_cost AS ContractedCost,
      effective_cost AS PricingCurrencyEffectiveCost,
      unit_price AS ListUnitPrice,
      unit_price AS ContractedUnitPrice,
      unit_price AS PricingCurrencyListUnitPrice,
      unit_price AS PricingCurrencyContractedUnitPrice,
      quantity AS PricingQuantity,
      unit AS PricingUnit,
      IF(is_day, CAST(seats AS BIGNUMERIC), NULL) AS ConsumedQuantity,
      IF(is_day, 'Seats', NULL) AS ConsumedUnit,
      'Standard' AS PricingCategory,
      currency AS BillingCurrency,
      currency AS PricingCurrency,
      account_id AS BillingAccountId,
      account_id AS BillingAccountName,
      'Account' AS BillingAccountType,
      TIMESTAMP(DATE_TRUNC(day, MONTH)) AS BillingPeriodStart,
      TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)) AS BillingPeriodEnd,
      TIMESTAMP(day) AS ChargePeriodStart,
      TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)) AS ChargePeriodEnd,
      IF(is_day, 'Usage', 'Purchase') AS ChargeCategory,
      IF(kind IN ('cycle', 'day'), 'Recurring', 'One-Time') AS ChargeFrequency,
      described AS ChargeDescription,
      invoice_id AS InvoiceId,
      vendor AS ProviderName,
      vendor AS PublisherName,
      vendor AS ServiceProviderName,
      vendor AS HostProviderName,
      vendor AS InvoiceIssuerName,
      category AS ServiceCategory,
      subcategory AS ServiceSubcategory,
      service AS ServiceName,
      sku AS SkuId,
      unit AS SkuMeter,
      CONCAT(sku, '/', billing_cycle, '/', kind) AS SkuPriceId,
      tags AS Tags,
      IF(kind = 'cycle', commitment_id, NULL) AS ResourceId,
      IF(kind = 'cycle' AND commitment_id IS NOT NULL, 'Subscription', NULL) AS ResourceType,
      IF(commitment_id IS NULL, NULL, JSON_OBJECT('Elements', JSON_ARRAY(JSON_OBJECT(
        'ContractId', subscription_id, 'ContractCommitmentId', commitment_id,
        'ContractCommitmentAppliedCost', commitment_cost,
        'ContractCommitmentAppliedQuantity', NULL, 'ContractCommitmentAppliedUnit', NULL
      )))) AS ContractApplied
    FROM cost
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
