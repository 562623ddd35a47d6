-- What no team answers for: costs without a team tag, by month, provider, service, account and kind of charge.
--
-- Taxes and credits seldom have tags: leave them out by category to see what can be tagged.
SELECT
  DATE_TRUNC(day, MONTH) AS month, provider, service, account, sub_account, category, currency,
  SUM(billed_cost) AS billed_cost,
  SUM(effective_cost) AS effective_cost,
  COUNT(*) AS charges
FROM `{dataset}.cost_charges`
WHERE team IS NULL
GROUP BY month, provider, service, account, sub_account, category, currency
