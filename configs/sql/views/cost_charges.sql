-- Every charge, by what people ask for: day, provider, service, model, team. The other views read this one.
--
-- The team is the tag "team" of the workload that a shared cost was split to, else of the resource. Clouds write the key
-- in several ways; an empty value is none.
SELECT
  DATE(ChargePeriodStart) AS day,
  ServiceProviderName AS provider,
  ServiceName AS service,
  x_Model AS model,
  x_TokenType AS token_type,
  NULLIF(TRIM(COALESCE(
    JSON_VALUE(AllocatedTags, '$.team'), JSON_VALUE(AllocatedTags, '$.Team'),
    JSON_VALUE(Tags, '$.team'), JSON_VALUE(Tags, '$.Team'),
    JSON_VALUE(Tags, '$."user:team"'), JSON_VALUE(Tags, '$."user:Team"')
  )), '') AS team,
  BillingAccountId AS account,
  COALESCE(SubAccountName, SubAccountId) AS sub_account,
  ChargeCategory AS category,
  BillingCurrency AS currency,
  BilledCost AS billed_cost,
  EffectiveCost AS effective_cost,
  ListCost AS list_cost,
  ConsumedQuantity AS quantity,
  ConsumedUnit AS unit
FROM `{dataset}.cost_data_standard_1_3`
