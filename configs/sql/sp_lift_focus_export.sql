-- FOCUS exports of any version from 1.0 to 1.3 (cloud_focus_export), lifted to FOCUS 1.3. Costs, quantities and periods
-- pass through untouched. Fills p_staging; the engine commits from there with lineage. {dataset} is set when it is
-- deployed. What older versions lack is filled by the rules of the specification's own changes:
--   1.3 ServiceProviderName and HostProviderName replace ProviderName and PublisherName, which stay mandatory;
--   1.2 PricingCurrency: it is the billing currency unless the export says otherwise, and so are its prices and costs;
--   1.2 account types: the export does not say, so they get the words of their own columns;
--   1.1 ServiceSubcategory: the allowed value for "none fits" is Other (<category>);
--   names of accounts may not be NULL where there is an id: without a name the id is the name;
--   1.0 ChargeFrequency was not mandatory and may not be NULL: Usage-Based for usage, else One-Time, which claims least;
--   1.0 ContractedCost is mandatory, yet real exports leave it empty: without a negotiated price the list price holds.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_lift_focus_export`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  -- Without a value:
  --   no charge of an export is known to be one of GenAI: x_Model, x_TokenType, x_ServiceTier, x_PriceSource,
  --     x_PriceDate
  --   a row of the export is one row here, which is what NULL means: x_SourceRows
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_SourceColumns,
      AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId, AllocatedResourceName, AllocatedTags,
      AvailabilityZone, BilledCost, BillingAccountId, BillingAccountName, BillingCurrency, BillingPeriodEnd,
      BillingPeriodStart, CapacityReservationId, CapacityReservationStatus, ChargeCategory, ChargeClass,
      ChargeDescription, ChargePeriodEnd, ChargePeriodStart, CommitmentDiscountCategory, CommitmentDiscountId,
      CommitmentDiscountName, CommitmentDiscountQuantity, CommitmentDiscountStatus, CommitmentDiscountType,
      CommitmentDiscountUnit, ConsumedQuantity, ConsumedUnit, ContractApplied,
      ContractedUnitPrice, EffectiveCost, InvoiceId, InvoiceIssuerName, ListCost, ListUnitPrice,
      PricingCategory, PricingQuantity, PricingUnit, RegionId, RegionName, ResourceId, ResourceName,
      ResourceType, ServiceCategory, ServiceName, SkuId, SkuMeter, SkuPriceDetails, SkuPriceId, SubAccountId,
      SubAccountName, Tags, ServiceProviderName, ProviderName, PublisherName, HostProviderName,
      ServiceSubcategory, BillingAccountType, SubAccountType, ChargeFrequency, PricingCurrency,
      PricingCurrencyEffectiveCost, PricingCurrencyListUnitPrice, PricingCurrencyContractedUnitPrice, ContractedCost
    )
    WITH source AS (
      SELECT *, COALESCE(PricingCurrency, BillingCurrency) = BillingCurrency AS same_currency
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
    )
    SELECT
      x_pipeline_run_date, x_org_slug,
      '1.3' AS x_FocusVersion,
      extra AS x_SourceColumns,
      AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId, AllocatedResourceName, AllocatedTags,
      AvailabilityZone, BilledCost, BillingAccountId,
      COALESCE(BillingAccountName, BillingAccountId) AS BillingAccountName,
      BillingCurrency, BillingPeriodEnd, BillingPeriodStart, CapacityReservationId, CapacityReservationStatus,
      ChargeCategory, ChargeClass, ChargeDescription, ChargePeriodEnd, ChargePeriodStart, CommitmentDiscountCategory,
      CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountQuantity, CommitmentDiscountStatus,
      CommitmentDiscountType, CommitmentDiscountUnit, ConsumedQuantity, ConsumedUnit, ContractApplied,
      ContractedUnitPrice, EffectiveCost, InvoiceId, InvoiceIssuerName, ListCost, ListUnitPrice, PricingCategory,
      PricingQuantity, PricingUnit, RegionId, RegionName, ResourceId, ResourceName, ResourceType, ServiceCategory,
      ServiceName, SkuId, SkuMeter, SkuPriceDetails, SkuPriceId, SubAccountId,
      IF(SubAccountId IS NULL, SubAccountName, COALESCE(SubAccountName, SubAccountId)) AS SubAccountName,
      Tags,
      COALESCE(ServiceProviderName, ProviderName) AS ServiceProviderName,
      COALESCE(ProviderName, ServiceProviderName) AS ProviderName,
      COALESCE(PublisherName, ServiceProviderName, ProviderName) AS PublisherName,
      COALESCE(HostProviderName, ServiceProviderName, ProviderName) AS HostProviderName,
      COALESCE(ServiceSubcategory, CONCAT('Other (', ServiceCategory, ')')) AS ServiceSubcategory,
      COALESCE(BillingAccountType, 'Billing Account') AS BillingAccountType,
      IF(SubAccountId IS NULL, NULL, COALESCE(SubAccountType, 'Sub Account')) AS SubAccountType,
      CASE LOWER(ChargeFrequency)
        WHEN 'usage-based' THEN 'Usage-Based'  -- real exports spell it in other ways
        WHEN 'one-time' THEN 'One-Time'
        WHEN 'recurring' THEN 'Recurring'
        ELSE COALESCE(ChargeFrequency, IF(ChargeCategory = 'Usage', 'Usage-Based', 'One-Time'))
      END AS ChargeFrequency,
      COALESCE(PricingCurrency, BillingCurrency) AS PricingCurrency,
      COALESCE(PricingCurrencyEffectiveCost, IF(same_currency, EffectiveCost, NULL)) AS PricingCurrencyEffectiveCost,
      COALESCE(PricingCurrencyListUnitPrice, IF(same_currency, ListUnitPrice, NULL)) AS PricingCurrencyListUnitPrice,
      COALESCE(
        PricingCurrencyContractedUnitPrice, IF(same_currency, ContractedUnitPrice, NULL)
      ) AS PricingCurrencyContractedUnitPrice,
      COALESCE(ContractedCost, ListCost) AS ContractedCost
    FROM source
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
