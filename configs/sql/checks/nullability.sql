-- Whether each row has the values that FOCUS 1.3 demands of it, and none that it forbids. Placeholders, parameters and
-- answer as in values.sql.
SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM (
  SELECT
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      SubAccountId AS sub_account, ResourceId AS resource, SkuPriceId AS sku_price, ChargeCategory AS category
    )) AS example,
    [
      -- Never empty.
      IF(BilledCost IS NULL, 'BilledCost.missing', NULL),
      IF(BillingAccountId IS NULL, 'BillingAccountId.missing', NULL),
      IF(BillingCurrency IS NULL, 'BillingCurrency.missing', NULL),
      IF(BillingPeriodEnd IS NULL, 'BillingPeriodEnd.missing', NULL),
      IF(BillingPeriodStart IS NULL, 'BillingPeriodStart.missing', NULL),
      IF(ChargeCategory IS NULL, 'ChargeCategory.missing', NULL),
      IF(ChargeDescription IS NULL, 'ChargeDescription.missing', NULL),
      IF(ChargeFrequency IS NULL, 'ChargeFrequency.missing', NULL),
      IF(ChargePeriodEnd IS NULL, 'ChargePeriodEnd.missing', NULL),
      IF(ChargePeriodStart IS NULL, 'ChargePeriodStart.missing', NULL),
      IF(ContractedCost IS NULL, 'ContractedCost.missing', NULL),
      IF(EffectiveCost IS NULL, 'EffectiveCost.missing', NULL),
      IF(InvoiceIssuerName IS NULL, 'InvoiceIssuerName.missing', NULL),
      IF(ListCost IS NULL, 'ListCost.missing', NULL),
      IF(PricingCurrency IS NULL, 'PricingCurrency.missing', NULL),
      IF(PricingCurrencyEffectiveCost IS NULL, 'PricingCurrencyEffectiveCost.missing', NULL),
      IF(ProviderName IS NULL, 'ProviderName.missing', NULL),
      IF(PublisherName IS NULL, 'PublisherName.missing', NULL),
      IF(ServiceCategory IS NULL, 'ServiceCategory.missing', NULL),
      IF(ServiceName IS NULL, 'ServiceName.missing', NULL),
      IF(ServiceProviderName IS NULL, 'ServiceProviderName.missing', NULL),
      IF(ServiceSubcategory IS NULL, 'ServiceSubcategory.missing', NULL),

      -- Both or neither.
      IF((AllocatedResourceId IS NULL) != (AllocatedResourceName IS NULL), 'AllocatedResourceName.pair', NULL),
      IF((BillingAccountId IS NULL) != (BillingAccountType IS NULL), 'BillingAccountType.pair', NULL),
      IF(
        (CommitmentDiscountId IS NULL) != (CommitmentDiscountCategory IS NULL), 'CommitmentDiscountCategory.pair', NULL
      ),
      IF((CommitmentDiscountId IS NULL) != (CommitmentDiscountType IS NULL), 'CommitmentDiscountType.pair', NULL),
      IF((CommitmentDiscountQuantity IS NULL) != (CommitmentDiscountUnit IS NULL), 'CommitmentDiscountUnit.pair', NULL),
      IF((ConsumedQuantity IS NULL) != (ConsumedUnit IS NULL), 'ConsumedUnit.pair', NULL),
      IF((PricingQuantity IS NULL) != (PricingUnit IS NULL), 'PricingUnit.pair', NULL),
      IF((RegionId IS NULL) != (RegionName IS NULL), 'RegionName.pair', NULL),
      IF((ResourceId IS NULL) != (ResourceType IS NULL), 'ResourceType.pair', NULL),
      IF((SubAccountId IS NULL) != (SubAccountName IS NULL), 'SubAccountName.pair', NULL),
      IF((SubAccountId IS NULL) != (SubAccountType IS NULL), 'SubAccountType.pair', NULL),

      -- Nothing without what it belongs to.
      IF(
        AllocatedMethodId IS NULL AND (
          AllocatedResourceId IS NOT NULL OR AllocatedTags IS NOT NULL OR AllocatedMethodDetails IS NOT NULL
        ),
        'AllocatedMethodId.required', NULL
      ),
      IF(CapacityReservationId IS NULL AND CapacityReservationStatus IS NOT NULL,
        'CapacityReservationStatus.orphan', NULL),
      IF(CommitmentDiscountId IS NULL AND CommitmentDiscountName IS NOT NULL, 'CommitmentDiscountName.orphan', NULL),
      IF(CommitmentDiscountId IS NULL AND CommitmentDiscountStatus IS NOT NULL,
        'CommitmentDiscountStatus.orphan', NULL),
      IF(ResourceId IS NULL AND ResourceName IS NOT NULL, 'ResourceName.orphan', NULL),
      IF(SkuId IS NULL AND SkuMeter IS NOT NULL, 'SkuMeter.orphan', NULL),
      IF(SkuId IS NOT NULL AND SkuMeter IS NULL, 'SkuMeter.missing', NULL),
      IF(SkuId IS NULL AND SkuPriceId IS NOT NULL, 'SkuPriceId.orphan', NULL),
      IF(SkuPriceId IS NULL AND SkuPriceDetails IS NOT NULL, 'SkuPriceDetails.orphan', NULL),
      IF(SkuPriceId IS NULL AND CommitmentDiscountQuantity IS NOT NULL, 'CommitmentDiscountQuantity.orphan', NULL),
      IF(SkuPriceId IS NULL AND ConsumedQuantity IS NOT NULL, 'ConsumedQuantity.orphan', NULL),
      IF(SkuPriceId IS NULL AND PricingCategory IS NOT NULL, 'PricingCategory.orphan', NULL),
      IF(SkuPriceId IS NULL AND PricingQuantity IS NOT NULL, 'PricingQuantity.orphan', NULL),
      IF(
        SkuPriceId IS NULL AND COALESCE(
          ListUnitPrice, ContractedUnitPrice, PricingCurrencyListUnitPrice, PricingCurrencyContractedUnitPrice
        ) IS NOT NULL,
        'unit_prices.orphan', NULL
      ),
      IF(
        SkuPriceId IS NOT NULL AND ChargeClass IS NULL AND (
          ListUnitPrice IS NULL OR ContractedUnitPrice IS NULL OR PricingCurrencyListUnitPrice IS NULL
          OR PricingCurrencyContractedUnitPrice IS NULL
        ),
        'unit_prices.missing', NULL
      ),

      -- By kind of charge. Corrections of an invoiced period may leave out what the charge that they correct had.
      IF(
        ChargeCategory = 'Tax' AND (SkuId IS NOT NULL OR SkuPriceId IS NOT NULL OR PricingQuantity IS NOT NULL
          OR PricingCategory IS NOT NULL OR ListUnitPrice IS NOT NULL OR ContractedUnitPrice IS NOT NULL
          OR PricingCurrencyListUnitPrice IS NOT NULL OR PricingCurrencyContractedUnitPrice IS NOT NULL),
        'Tax.unpriced', NULL
      ),
      IF(is_priced AND SkuId IS NULL, 'SkuId.missing', NULL),
      IF(is_priced AND SkuPriceId IS NULL, 'SkuPriceId.missing', NULL),
      IF(is_priced AND PricingCategory IS NULL, 'PricingCategory.missing', NULL),
      IF(is_priced AND PricingQuantity IS NULL, 'PricingQuantity.missing', NULL),
      IF(is_priced AND ListUnitPrice IS NULL, 'ListUnitPrice.missing', NULL),
      IF(is_priced AND ContractedUnitPrice IS NULL, 'ContractedUnitPrice.missing', NULL),
      IF(
        ConsumedQuantity IS NOT NULL AND (ChargeCategory != 'Usage' OR CommitmentDiscountStatus = 'Unused'),
        'ConsumedQuantity.forbidden', NULL
      ),
      IF(
        ConsumedQuantity IS NULL AND ChargeCategory = 'Usage' AND ChargeClass IS NULL
        AND COALESCE(CommitmentDiscountStatus, '') != 'Unused',
        'ConsumedQuantity.missing', NULL
      ),
      IF(
        CapacityReservationStatus IS NULL AND CapacityReservationId IS NOT NULL AND ChargeCategory = 'Usage',
        'CapacityReservationStatus.missing', NULL
      ),
      IF(
        CommitmentDiscountStatus IS NULL AND CommitmentDiscountId IS NOT NULL AND ChargeCategory = 'Usage',
        'CommitmentDiscountStatus.missing', NULL
      ),
      IF(is_priced AND CommitmentDiscountId IS NOT NULL AND CommitmentDiscountQuantity IS NULL,
        'CommitmentDiscountQuantity.missing', NULL),
      IF(
        CommitmentDiscountQuantity IS NOT NULL
        AND (CommitmentDiscountId IS NULL OR ChargeCategory NOT IN ('Usage', 'Purchase')),
        'CommitmentDiscountQuantity.forbidden', NULL
      ),
      IF(HostProviderName IS NULL AND ChargeCategory IN ('Usage', 'Purchase'), 'HostProviderName.missing', NULL)
    ] AS names
  FROM (
    SELECT *, ChargeCategory IN ('Usage', 'Purchase') AND ChargeClass IS NULL AS is_priced
    FROM `{table}`
    WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
  )
)
CROSS JOIN UNNEST(names) AS name
WHERE name IS NOT NULL
GROUP BY name
