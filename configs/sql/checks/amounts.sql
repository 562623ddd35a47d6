-- Whether prices, quantities and costs of each row fit together.
-- Placeholders, parameters and answer as in values.sql; also @last_place BIGNUMERIC: the smallest amount that the
-- warehouse keeps (1e-38 in BigQuery, 1e-18 in the local emulator).
--
-- A product is made of four parts, whole and fraction of both factors, because the emulator has 38 digits for it.
-- Price and quantity may each be off by half a last place, and so their product by (price + quantity + 1) such halves:
-- what is within that is exact.
WITH charges AS (
  SELECT
    *,
    TRUNC(ListUnitPrice) * TRUNC(PricingQuantity)
    + TRUNC(ListUnitPrice) * (PricingQuantity - TRUNC(PricingQuantity))
    + (ListUnitPrice - TRUNC(ListUnitPrice)) * TRUNC(PricingQuantity)
    + CAST(
      (ListUnitPrice - TRUNC(ListUnitPrice)) * (PricingQuantity - TRUNC(PricingQuantity)) AS BIGNUMERIC
    ) AS list_product,
    TRUNC(ContractedUnitPrice) * TRUNC(PricingQuantity)
    + TRUNC(ContractedUnitPrice) * (PricingQuantity - TRUNC(PricingQuantity))
    + (ContractedUnitPrice - TRUNC(ContractedUnitPrice)) * TRUNC(PricingQuantity)
    + CAST(
      (ContractedUnitPrice - TRUNC(ContractedUnitPrice)) * (PricingQuantity - TRUNC(PricingQuantity)) AS BIGNUMERIC
    ) AS contracted_product
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
),

compared AS (
  SELECT
    *,
    ABS(ListCost - list_product) AS list_off,
    ABS(ContractedCost - contracted_product) AS contracted_off,
    (ListUnitPrice + ABS(PricingQuantity) + 1) * @last_place AS list_exact,
    (ContractedUnitPrice + ABS(PricingQuantity) + 1) * @last_place AS contracted_exact,
    -- Beyond a billionth of the amount nobody takes it for rounding.
    GREATEST(ABS(ListCost), 1) * BIGNUMERIC '0.000000001' AS list_rounding,
    GREATEST(ABS(ContractedCost), 1) * BIGNUMERIC '0.000000001' AS contracted_rounding
  FROM charges
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM (
  SELECT
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      SubAccountId AS sub_account, ResourceId AS resource, SkuPriceId AS sku_price, ChargeCategory AS category
    )) AS example,
    [
      IF(ListUnitPrice < 0, 'ListUnitPrice.negative', NULL),
      IF(ContractedUnitPrice < 0, 'ContractedUnitPrice.negative', NULL),
      IF(PricingCurrencyListUnitPrice < 0, 'PricingCurrencyListUnitPrice.negative', NULL),
      IF(PricingCurrencyContractedUnitPrice < 0, 'PricingCurrencyContractedUnitPrice.negative', NULL),
      IF(list_off > list_rounding AND ChargeClass IS NULL, 'ListCost.product', NULL),
      IF(contracted_off > contracted_rounding AND ChargeClass IS NULL, 'ContractedCost.product', NULL),
      IF(list_off > list_exact AND list_off <= list_rounding, 'ListCost.rounded', NULL),
      IF(contracted_off > contracted_exact AND contracted_off <= contracted_rounding, 'ContractedCost.rounded', NULL),
      IF(
        ChargeCategory = 'Purchase' AND CommitmentDiscountId IS NOT NULL AND EffectiveCost != 0,
        'EffectiveCost.prepaid', NULL
      ),
      IF(
        ChargeCategory = 'Credit' AND ListUnitPrice IS NULL AND ContractedUnitPrice IS NULL
        AND (ListCost != BilledCost OR ContractedCost != BilledCost OR EffectiveCost != BilledCost),
        'Credit.costs', NULL
      ),
      IF(
        PricingCurrency = BillingCurrency AND (
          PricingCurrencyEffectiveCost != EffectiveCost OR PricingCurrencyListUnitPrice != ListUnitPrice
          OR PricingCurrencyContractedUnitPrice != ContractedUnitPrice
        ),
        'PricingCurrency.same', NULL
      )
    ] AS names
  FROM compared
)
CROSS JOIN UNNEST(names) AS name
WHERE name IS NOT NULL
GROUP BY name
