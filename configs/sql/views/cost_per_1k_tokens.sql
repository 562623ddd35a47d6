-- What 1,000 tokens have cost: by day, provider, service, model, token type and currency.
--
-- Of more days or types together: SUM(effective_cost) * 1000 / SUM(tokens), never the mean of means.
SELECT
  day, provider, service, model, token_type, currency,
  SUM(quantity) AS tokens,
  SUM(effective_cost) AS effective_cost,
  ROUND(SUM(effective_cost) * 1000 / SUM(quantity), 9) AS cost_per_1k
FROM `{dataset}.cost_charges`
WHERE category = 'Usage' AND unit = 'Tokens'
GROUP BY day, provider, service, model, token_type, currency
HAVING SUM(quantity) > 0
