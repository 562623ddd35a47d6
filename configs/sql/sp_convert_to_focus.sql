-- GenAI usage with prices (genai_payg_cost) to FOCUS 1.3: one row per day, account, project, model, token type and
-- price variant. Fills p_staging; the engine commits from there with lineage. {dataset} is set when it is deployed.
--
-- Usage whose price is unknown (cost IS NULL) is left out: FOCUS demands a BilledCost, and a zero would say "free".
-- Grouping by prices keeps cost = unit price x quantity exact in every row.
--
-- p_reported is the table of what the provider itself reports (genai_reported_cost), or '' where it reports nothing.
-- For each day that its report has, rows of category Adjustment hold what it says beyond usage x price, by project and
-- model (or tool), so that the day adds up to the report to the last digit; credits become rows of category Credit. A
-- day that the report does not have yet keeps the estimate alone. docs/focus.md tells why.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_convert_to_focus`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE, p_reported STRING
)
BEGIN
  -- Without a value:
  --   no provider shares costs out: AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId,
  --     AllocatedResourceName, AllocatedTags
  --   pay as you go reserves and commits to nothing: CapacityReservationId, CapacityReservationStatus,
  --     CommitmentDiscountCategory, CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountQuantity,
  --     CommitmentDiscountStatus, CommitmentDiscountType, CommitmentDiscountUnit, ContractApplied
  --   a model has no resource, zone or tags: ResourceId, ResourceName, ResourceType, AvailabilityZone, Tags
  --   what was restated replaces its day and corrects no invoice: ChargeClass
  --   no report names the invoice: InvoiceId
  --   a row sums many of the source: x_SourceColumns
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_Model, x_TokenType, x_ServiceTier, x_PriceSource, x_PriceDate,
      x_SourceRows,
      BilledCost, EffectiveCost, ListCost, ContractedCost, PricingCurrencyEffectiveCost,
      ListUnitPrice, ContractedUnitPrice, PricingCurrencyListUnitPrice, PricingCurrencyContractedUnitPrice,
      PricingQuantity, PricingUnit, ConsumedQuantity, ConsumedUnit, PricingCategory,
      BillingCurrency, PricingCurrency,
      BillingAccountId, BillingAccountName, BillingAccountType, SubAccountId, SubAccountName, SubAccountType,
      BillingPeriodStart, BillingPeriodEnd, ChargePeriodStart, ChargePeriodEnd,
      ChargeCategory, ChargeFrequency, ChargeDescription,
      ProviderName, PublisherName, ServiceProviderName, HostProviderName, InvoiceIssuerName,
      ServiceCategory, ServiceSubcategory, ServiceName, RegionId, RegionName,
      SkuId, SkuMeter, SkuPriceId, SkuPriceDetails
    )
    WITH priced AS (
      SELECT
        x_pipeline_run_date AS day, x_org_slug AS org, account_id, account_type, project_id, project_type, model,
        COALESCE(model, endpoint) AS sku, meter, unit, price_variant, currency, unit_price, list_unit_price,
        price_source, price_date, provider_name, COALESCE(publisher, provider_name) AS publisher_name, service_name,
        region,
        SUM(quantity) AS quantity, SUM(cost) AS cost, SUM(list_cost) AS list_cost, COUNT(*) AS source_rows
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ?
        AND x_pipeline_run_date BETWEEN ? AND ? AND cost IS NOT NULL
      GROUP BY
        day, org, account_id, account_type, project_id, project_type, model, sku, meter, unit, price_variant, currency,
        unit_price, list_unit_price, price_source, price_date, provider_name, publisher_name, service_name, region
    )
    SELECT
      day AS x_pipeline_run_date,
      org AS x_org_slug,
      '1.3' AS x_FocusVersion,
      model AS x_Model,
      meter AS x_TokenType,
      price_variant AS x_ServiceTier,
      price_source AS x_PriceSource,
      price_date AS x_PriceDate,
      source_rows AS x_SourceRows,
      cost AS BilledCost,
      cost AS EffectiveCost,
      list_cost AS ListCost,
      cost AS ContractedCost,
      cost AS PricingCurrencyEffectiveCost,
      list_unit_price AS ListUnitPrice,
      unit_price AS ContractedUnitPrice,
      list_unit_price AS PricingCurrencyListUnitPrice,
      unit_price AS PricingCurrencyContractedUnitPrice,
      quantity AS PricingQuantity,
      unit AS PricingUnit,
      quantity AS ConsumedQuantity,
      unit AS ConsumedUnit,
      'Standard' AS PricingCategory,
      currency AS BillingCurrency,
      currency AS PricingCurrency,
      account_id AS BillingAccountId,
      account_id AS BillingAccountName,
      account_type AS BillingAccountType,
      project_id AS SubAccountId,
      project_id AS SubAccountName,
      IF(project_id IS NULL, NULL, project_type) AS SubAccountType,
      TIMESTAMP(DATE_TRUNC(day, MONTH)) AS BillingPeriodStart,
      TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)) AS BillingPeriodEnd,
      TIMESTAMP(day) AS ChargePeriodStart,
      TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)) AS ChargePeriodEnd,
      'Usage' AS ChargeCategory,
      'Usage-Based' AS ChargeFrequency,
      CONCAT(sku, ' ', meter, IF(price_variant = 'standard', '', CONCAT(' ', price_variant))) AS ChargeDescription,
      provider_name AS ProviderName,
      publisher_name AS PublisherName,
      provider_name AS ServiceProviderName,
      provider_name AS HostProviderName,
      provider_name AS InvoiceIssuerName,
      'AI and Machine Learning' AS ServiceCategory,
      'Generative AI' AS ServiceSubcategory,
      service_name AS ServiceName,
      region AS RegionId,
      IF(region = 'us', 'United States', region) AS RegionName,
      CONCAT(sku, '/', meter) AS SkuId,
      meter AS SkuMeter,
      CONCAT(sku, '/', meter, '/', price_variant) AS SkuPriceId,
      TO_JSON(STRUCT(meter AS x_TokenType)) AS SkuPriceDetails
    FROM priced
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;

  IF p_reported != '' THEN
    -- Without a value:
    --   no provider shares costs out: AllocatedMethodDetails, AllocatedMethodId, AllocatedResourceId,
    --     AllocatedResourceName, AllocatedTags
    --   pay as you go reserves and commits to nothing: CapacityReservationId, CapacityReservationStatus,
    --     CommitmentDiscountCategory, CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountQuantity,
    --     CommitmentDiscountStatus, CommitmentDiscountType, CommitmentDiscountUnit, ContractApplied
    --   a model has no resource, zone or tags: ResourceId, ResourceName, ResourceType, AvailabilityZone, Tags
    --   what was restated replaces its day and corrects no invoice: ChargeClass
    --   no report names the invoice: InvoiceId
    --   a difference has no quantity, so FOCUS wants neither price nor SKU: PricingQuantity, PricingUnit,
    --     PricingCategory, ListUnitPrice, ContractedUnitPrice, PricingCurrencyListUnitPrice,
    --     PricingCurrencyContractedUnitPrice, ConsumedQuantity, ConsumedUnit, SkuId, SkuMeter, SkuPriceId,
    --     SkuPriceDetails
    --   it is known by model alone: x_TokenType, x_ServiceTier, x_PriceDate, RegionId, RegionName
    --   a row sums many of the source: x_SourceColumns
    EXECUTE IMMEDIATE FORMAT("""
      INSERT INTO `%s` (
        x_pipeline_run_date, x_org_slug, x_FocusVersion, x_Model, x_PriceSource, x_SourceRows,
        BilledCost, EffectiveCost, ListCost, ContractedCost, PricingCurrencyEffectiveCost,
        BillingCurrency, PricingCurrency,
        BillingAccountId, BillingAccountName, BillingAccountType, SubAccountId, SubAccountName, SubAccountType,
        BillingPeriodStart, BillingPeriodEnd, ChargePeriodStart, ChargePeriodEnd,
        ChargeCategory, ChargeFrequency, ChargeDescription,
        ProviderName, PublisherName, ServiceProviderName, HostProviderName, InvoiceIssuerName,
        ServiceCategory, ServiceSubcategory, ServiceName
      )
      WITH reported AS (
        SELECT
          x_pipeline_run_date AS day, x_org_slug AS org, account_id, account_type, project_id, project_type, model,
          COALESCE(model, meter, line_item, 'other') AS subject, currency, amount, credit, provider_name, service_name
        FROM `%s`
        WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
      ),
      priced AS (
        SELECT
          x_pipeline_run_date AS day, x_org_slug AS org, account_id, account_type, project_id, project_type,
          IF(meter IN ('web_searches', 'file_searches'), NULL, model) AS model,
          IF(meter IN ('web_searches', 'file_searches'), meter, COALESCE(model, meter)) AS subject,
          currency, cost, provider_name, service_name
        FROM `%s`
        WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
          AND cost IS NOT NULL
          AND CONCAT(CAST(x_pipeline_run_date AS STRING), account_id) IN (
            SELECT CONCAT(CAST(day AS STRING), account_id) FROM reported
          )
      ),
      both_sides AS (
        SELECT
          day, org, account_id, account_type, project_id, project_type, model, subject, currency, provider_name,
          service_name, amount, 1 AS source_rows
        FROM reported
        UNION ALL
        SELECT
          day, org, account_id, account_type, project_id, project_type, model, subject, currency, provider_name,
          service_name, -cost AS amount, 0 AS source_rows
        FROM priced
      ),
      charges AS (
        SELECT
          day, org, account_id, account_type, project_id, project_type, model, currency, provider_name, service_name,
          SUM(amount) AS amount, SUM(source_rows) AS source_rows, 'Adjustment' AS category,
          CONCAT(subject, ': cost reported by ', provider_name, ' beyond usage at known prices') AS description
        FROM both_sides
        GROUP BY
          day, org, account_id, account_type, project_id, project_type, model, subject, currency, provider_name,
          service_name
        HAVING SUM(both_sides.amount) != 0  -- qualified: by itself it would name the sum above, as an alias goes first
        UNION ALL
        SELECT
          day, org, account_id, account_type, project_id, project_type, model, currency, provider_name, service_name,
          SUM(credit) AS amount, 0 AS source_rows, 'Credit' AS category,
          CONCAT(subject, ': paid by credits') AS description
        FROM reported
        WHERE credit IS NOT NULL
        GROUP BY
          day, org, account_id, account_type, project_id, project_type, model, subject, currency, provider_name,
          service_name
        HAVING SUM(reported.credit) != 0
      )
      SELECT
        day AS x_pipeline_run_date,
        org AS x_org_slug,
        '1.3' AS x_FocusVersion,
        model AS x_Model,
        CONCAT('reported by ', provider_name) AS x_PriceSource,
        source_rows AS x_SourceRows,
        amount AS BilledCost,
        amount AS EffectiveCost,
        amount AS ListCost,
        amount AS ContractedCost,
        amount AS PricingCurrencyEffectiveCost,
        currency AS BillingCurrency,
        currency AS PricingCurrency,
        account_id AS BillingAccountId,
        account_id AS BillingAccountName,
        account_type AS BillingAccountType,
        project_id AS SubAccountId,
        project_id AS SubAccountName,
        IF(project_id IS NULL, NULL, project_type) AS SubAccountType,
        TIMESTAMP(DATE_TRUNC(day, MONTH)) AS BillingPeriodStart,
        TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)) AS BillingPeriodEnd,
        TIMESTAMP(day) AS ChargePeriodStart,
        TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)) AS ChargePeriodEnd,
        category AS ChargeCategory,
        'One-Time' AS ChargeFrequency,
        description AS ChargeDescription,
        provider_name AS ProviderName,
        provider_name AS PublisherName,
        provider_name AS ServiceProviderName,
        provider_name AS HostProviderName,
        provider_name AS InvoiceIssuerName,
        'AI and Machine Learning' AS ServiceCategory,
        'Generative AI' AS ServiceSubcategory,
        service_name AS ServiceName
      FROM charges
    """, p_staging, p_reported, p_source)
    USING
      p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date,
      p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
  END IF;
END
