-- What each month has cost so far, and what the running one will have cost at its end: by provider and currency.
--
-- Forecast: effective cost to date, plus the days that are left, each at the mean of the provider's last 7 days with
-- data. The range: each of those days like the cheapest, or like the dearest, of the 7. Only usage is carried forward;
-- purchases, taxes, credits and adjustments count as they came. Today counts for nothing, since it is not over. The
-- running month is that of the last day with data; a provider that has been silent for more than 7 days before it is
-- not carried forward, and neither are months that are over.
WITH daily AS (
  SELECT
    provider, currency, day,
    SUM(billed_cost) AS billed,
    SUM(effective_cost) AS effective,
    SUM(IF(category = 'Usage', effective_cost, 0)) AS carried
  FROM `{dataset}.cost_charges`
  WHERE day < CURRENT_DATE()
  GROUP BY provider, currency, day
),

as_of AS (
  SELECT MAX(day) AS day FROM daily
),

providers AS (
  SELECT provider, currency, MIN(day) AS first_day, MAX(day) AS last_day
  FROM daily
  GROUP BY provider, currency
),

-- The running month has a line for whoever is carried forward into it, even before the first charge.
months AS (
  SELECT provider, currency, DATE_TRUNC(day, MONTH) AS month, SUM(billed) AS billed, SUM(effective) AS effective
  FROM (
    SELECT provider, currency, day, billed, effective FROM daily
    UNION ALL
    SELECT provider, currency, as_of.day, 0 AS billed, 0 AS effective FROM providers CROSS JOIN as_of
    WHERE last_day >= DATE_SUB(as_of.day, INTERVAL 7 DAY)
  )
  GROUP BY provider, currency, month
),

-- A day without a charge counts as nought, unless the provider was not there yet.
trailing AS (
  SELECT
    providers.provider, providers.currency, providers.last_day,
    LEAST(7, DATE_DIFF(providers.last_day, ANY_VALUE(providers.first_day), DAY) + 1) AS days,
    COUNT(*) AS days_with_cost,
    SUM(carried) AS total, MIN(carried) AS cheapest, MAX(carried) AS dearest
  FROM providers
  JOIN daily
    ON
      daily.provider = providers.provider AND daily.currency = providers.currency
      AND daily.day BETWEEN DATE_SUB(providers.last_day, INTERVAL 6 DAY) AND providers.last_day
  GROUP BY providers.provider, providers.currency, providers.last_day
),

projected AS (
  SELECT
    months.provider, months.currency, months.month, months.billed, months.effective, trailing.last_day, trailing.days,
    trailing.total,
    IF(days_with_cost < days, LEAST(cheapest, 0), cheapest) AS cheapest,
    IF(days_with_cost < days, GREATEST(dearest, 0), dearest) AS dearest,
    IF(
      months.month = DATE_TRUNC(as_of.day, MONTH) AND last_day >= DATE_SUB(as_of.day, INTERVAL 7 DAY),
      DATE_DIFF(LAST_DAY(as_of.day), GREATEST(last_day, DATE_SUB(months.month, INTERVAL 1 DAY)), DAY),
      0
    ) AS days_left
  FROM months
  CROSS JOIN as_of
  JOIN trailing ON trailing.provider = months.provider AND trailing.currency = months.currency
)

SELECT
  month, provider, currency, billed AS billed_to_date, effective AS effective_to_date, last_day, days_left,
  effective + ROUND(total * days_left / days, 6) AS forecast,
  effective + cheapest * days_left AS forecast_low,
  effective + dearest * days_left AS forecast_high
FROM projected
