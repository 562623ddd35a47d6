-- What was spent on each day: by provider, service, model, team and currency.
--
-- billed_cost is what invoices say; effective_cost spreads what was paid ahead over the days that use it; list_cost is
-- what it would have been without discounts. Currencies are never added up.
SELECT
  day, provider, service, model, team, currency,
  SUM(billed_cost) AS billed_cost,
  SUM(effective_cost) AS effective_cost,
  SUM(list_cost) AS list_cost,
  COUNT(*) AS charges
FROM `{dataset}.cost_charges`
GROUP BY day, provider, service, model, team, currency
