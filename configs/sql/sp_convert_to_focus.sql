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
        price_source, price_date, provider_name, service_name, region,
        SUM(quantity) AS quantity, SUM(cost) AS cost, SUM(list_cost) AS list_cost, COUNT(*) AS source_rows
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ?
        AND x_pipeline_run_date BETWEEN ? AND ? AND cost IS NOT NULL
      GROUP BY
        day, org, account_id, account_type, project_id, project_type, model, sku, meter, unit, price_variant, currency,
        unit_price, list_unit_price, price_source, price_date, provider_name, service_name, region
    )
    SELECT
      day, org, '1.3', model, meter, price_variant, price_source, price_date, source_rows,
      cost, cost, list_cost, cost, cost,
      list_unit_price, unit_price, list_unit_price, unit_price,
      quantity, unit, quantity, unit, 'Standard',
      currency, currency,
      account_id, account_id, account_type, project_id, project_id, IF(project_id IS NULL, NULL, project_type),
      TIMESTAMP(DATE_TRUNC(day, MONTH)), TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)),
      TIMESTAMP(day), TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)),
      'Usage', 'Usage-Based', CONCAT(sku, ' ', meter, IF(price_variant = 'standard', '', CONCAT(' ', price_variant))),
      provider_name, provider_name, provider_name, provider_name, provider_name,
      'AI and Machine Learning', 'Generative AI', service_name, region, IF(region = 'us', 'United States', region),
      CONCAT(sku, '/', meter), meter, CONCAT(sku, '/', meter, '/', price_variant), TO_JSON(STRUCT(meter AS x_TokenType))
    FROM priced
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;

  IF p_reported != '' THEN
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
        HAVING SUM(amount) != 0
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
        HAVING SUM(credit) != 0
      )
      SELECT
        day, org, '1.3', model, CONCAT('reported by ', provider_name), source_rows,
        amount, amount, amount, amount, amount,
        currency, currency,
        account_id, account_id, account_type, project_id, project_id, IF(project_id IS NULL, NULL, project_type),
        TIMESTAMP(DATE_TRUNC(day, MONTH)), TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)),
        TIMESTAMP(day), TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)),
        category, 'One-Time', description,
        provider_name, provider_name, provider_name, provider_name, provider_name,
        'AI and Machine Learning', 'Generative AI', service_name
      FROM charges
    """, p_staging, p_reported, p_source)
    USING
      p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date,
      p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
  END IF;
END
