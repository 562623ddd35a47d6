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
-- What providers document as possibly empty, though the specification does not allow it, has a fallback. The columns
-- that a row got one for are named in x_SourceColumns.x_Filled, where conform finds them:
--   InvoiceIssuerName (AWS): the provider;
--   ServiceName (Microsoft, for Marketplace, credits, rounding): the SKU's meter, the publisher, or Other;
--   ServiceCategory: Other; ListCost: the contracted cost.
-- A unit price of 0 beside a cost means that the price is not known (Microsoft, for reservations and savings plans): it
-- becomes NULL. Costs are kept.
-- Before 1.3 no column names the seller of a marketplace charge but PublisherName: there it is the ServiceProviderName.
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
      SELECT
        *,
        COALESCE(PricingCurrency, BillingCurrency) = BillingCurrency AS same_currency,
        (BilledCost != 0 OR EffectiveCost != 0) AS is_paid,
        CASE
          WHEN PublisherName IS NULL THEN FALSE
          WHEN JSON_VALUE(extra, '$.x_PublisherCategory') IS NOT NULL
            THEN JSON_VALUE(extra, '$.x_PublisherCategory') = 'Vendor'
          WHEN REGEXP_CONTAINS(LOWER(ProviderName), r'^(aws|amazon)')
            THEN NOT REGEXP_CONTAINS(LOWER(PublisherName), r'^(aws|amazon)')
          WHEN REGEXP_CONTAINS(LOWER(ProviderName), r'^(microsoft|azure)')
            THEN NOT REGEXP_CONTAINS(LOWER(PublisherName), r'^(microsoft|azure)')
          WHEN LOWER(ProviderName) LIKE 'google%%' THEN LOWER(PublisherName) NOT LIKE 'google%%'
          WHEN LOWER(ProviderName) LIKE 'oracle%%' THEN LOWER(PublisherName) NOT LIKE 'oracle%%'
          ELSE FALSE
        END AS is_marketplace,
        RTRIM(CONCAT(
          IF(InvoiceIssuerName IS NULL, 'InvoiceIssuerName ', ''), IF(ServiceName IS NULL, 'ServiceName ', ''),
          IF(ServiceCategory IS NULL, 'ServiceCategory ', ''), IF(ListCost IS NULL, 'ListCost ', '')
        )) AS filled
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
    )
    SELECT
      x_pipeline_run_date, x_org_slug,
      -- 1.4 has neither of the two that 1.3 deprecates; its other columns are those of 1.3.
      IF(ProviderName IS NULL AND PublisherName IS NULL, '1.4', '1.3') AS x_FocusVersion,
      CASE
        WHEN filled = '' THEN extra
        WHEN extra IS NULL OR TO_JSON_STRING(extra) = '{}' THEN PARSE_JSON(CONCAT('{"x_Filled":"', filled, '"}'))
        ELSE PARSE_JSON(CONCAT('{"x_Filled":"', filled, '",', SUBSTR(TO_JSON_STRING(extra), 2)))
      END AS x_SourceColumns,
      AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId, AllocatedResourceName, AllocatedTags,
      AvailabilityZone, BilledCost, BillingAccountId,
      COALESCE(BillingAccountName, BillingAccountId) AS BillingAccountName,
      BillingCurrency, BillingPeriodEnd, BillingPeriodStart, CapacityReservationId, CapacityReservationStatus,
      ChargeCategory, ChargeClass, ChargeDescription, ChargePeriodEnd, ChargePeriodStart, CommitmentDiscountCategory,
      CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountQuantity, CommitmentDiscountStatus,
      CommitmentDiscountType, CommitmentDiscountUnit, ConsumedQuantity, ConsumedUnit, ContractApplied,
      IF(ContractedUnitPrice = 0 AND is_paid, NULL, ContractedUnitPrice) AS ContractedUnitPrice,
      EffectiveCost, InvoiceId,
      COALESCE(InvoiceIssuerName, ProviderName, ServiceProviderName, PublisherName) AS InvoiceIssuerName,
      COALESCE(ListCost, ContractedCost) AS ListCost,
      IF(ListUnitPrice = 0 AND is_paid, NULL, ListUnitPrice) AS ListUnitPrice,
      PricingCategory,
      PricingQuantity, PricingUnit, RegionId, RegionName, ResourceId, ResourceName, ResourceType,
      COALESCE(ServiceCategory, 'Other') AS ServiceCategory,
      COALESCE(ServiceName, SkuMeter, PublisherName, 'Other') AS ServiceName,
      SkuId, SkuMeter, SkuPriceDetails, SkuPriceId, SubAccountId,
      IF(SubAccountId IS NULL, SubAccountName, COALESCE(SubAccountName, SubAccountId)) AS SubAccountName,
      Tags,
      COALESCE(
        ServiceProviderName, IF(is_marketplace, PublisherName, NULL), ProviderName, PublisherName
      ) AS ServiceProviderName,
      COALESCE(ProviderName, ServiceProviderName, PublisherName) AS ProviderName,
      COALESCE(PublisherName, ServiceProviderName, ProviderName) AS PublisherName,
      COALESCE(HostProviderName, ServiceProviderName, ProviderName, PublisherName) AS HostProviderName,
      COALESCE(ServiceSubcategory, CONCAT('Other (', COALESCE(ServiceCategory, 'Other'), ')')) AS ServiceSubcategory,
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
      COALESCE(PricingCurrencyListUnitPrice, IF(same_currency AND NOT (ListUnitPrice = 0 AND is_paid), ListUnitPrice, NULL)) AS PricingCurrencyListUnitPrice,
      COALESCE(
        PricingCurrencyContractedUnitPrice, IF(same_currency AND NOT (ContractedUnitPrice = 0 AND is_paid), ContractedUnitPrice, NULL)
      ) AS PricingCurrencyContractedUnitPrice,
      COALESCE(ContractedCost, ListCost) AS ContractedCost
    FROM source
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
