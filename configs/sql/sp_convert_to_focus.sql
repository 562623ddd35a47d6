-- GenAI usage with prices (genai_payg_cost) to FOCUS 1.3: one row per day, account, project, model, token type and
-- price variant. Fills p_staging; the engine commits from there with lineage. {dataset} is set when it is deployed.
--
-- Usage whose price is unknown (cost IS NULL) is left out: FOCUS demands a BilledCost, and a zero would say "free".
-- Grouping by unit_price keeps cost = unit price x quantity exact in every row.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_convert_to_focus`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_Model, x_TokenType, x_ServiceTier, x_PriceSource,
      BilledCost, EffectiveCost, ListCost, ContractedCost, PricingCurrencyEffectiveCost,
      ListUnitPrice, ContractedUnitPrice, PricingCurrencyListUnitPrice, PricingCurrencyContractedUnitPrice,
      PricingQuantity, PricingUnit, ConsumedQuantity, ConsumedUnit, PricingCategory,
      BillingCurrency, PricingCurrency,
      BillingAccountId, BillingAccountName, BillingAccountType, SubAccountId, SubAccountName, SubAccountType,
      BillingPeriodStart, BillingPeriodEnd, ChargePeriodStart, ChargePeriodEnd,
      ChargeCategory, ChargeFrequency, ChargeDescription,
      ProviderName, PublisherName, ServiceProviderName, HostProviderName, InvoiceIssuerName,
      ServiceCategory, ServiceSubcategory, ServiceName,
      SkuId, SkuMeter, SkuPriceId, SkuPriceDetails
    )
    WITH priced AS (
      SELECT
        x_pipeline_run_date AS day, x_org_slug AS org, provider, account_id, project_id, model, COALESCE(model, endpoint) AS sku, meter,
        unit, price_variant, currency, unit_price, price_source, SUM(quantity) AS quantity, SUM(cost) AS cost,
        CASE provider
          WHEN 'openai' THEN 'OpenAI'
          WHEN 'anthropic' THEN 'Anthropic'
          WHEN 'gemini' THEN 'Google'
          WHEN 'deepseek' THEN 'DeepSeek'
          ELSE provider
        END AS issuer,
        CASE provider
          WHEN 'openai' THEN 'OpenAI API'
          WHEN 'anthropic' THEN 'Claude API'
          WHEN 'gemini' THEN 'Gemini API'
          WHEN 'deepseek' THEN 'DeepSeek API'
          ELSE CONCAT(provider, ' API')
        END AS service
      FROM `%s`
      WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ?
        AND x_pipeline_run_date BETWEEN ? AND ? AND cost IS NOT NULL
      GROUP BY
        day, org, provider, account_id, project_id, model, sku, meter, unit, price_variant, currency, unit_price,
        price_source, issuer, service
    )
    SELECT
      day, org, '1.3', model, meter, price_variant, price_source,
      cost, cost, cost, cost, cost,
      unit_price, unit_price, unit_price, unit_price,
      quantity, unit, quantity, unit, 'Standard',
      currency, currency,
      account_id, account_id, 'Organization', project_id, project_id, IF(project_id IS NULL, NULL, 'Project'),
      TIMESTAMP(DATE_TRUNC(day, MONTH)), TIMESTAMP(DATE_ADD(DATE_TRUNC(day, MONTH), INTERVAL 1 MONTH)),
      TIMESTAMP(day), TIMESTAMP(DATE_ADD(day, INTERVAL 1 DAY)),
      'Usage', 'Usage-Based', CONCAT(sku, ' ', meter, IF(price_variant = 'standard', '', CONCAT(' ', price_variant))),
      issuer, issuer, issuer, issuer, issuer,
      'AI and Machine Learning', 'Generative AI', service,
      CONCAT(sku, '/', meter), meter, CONCAT(sku, '/', meter, '/', price_variant), TO_JSON(STRUCT(meter AS x_TokenType))
    FROM priced
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
