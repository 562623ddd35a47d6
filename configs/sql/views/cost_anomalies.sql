-- Days on which a service cost far more, or far less, than in the 28 days before.
--
-- Usage at effective cost; a day without a charge is nought. Expected is the median of the 28 days before, and how far
-- days usually are from it is the median of their distances (MAD), which one strange day does not move. A day is listed
-- if it is off by more than 3.5 standard deviations (5.1891 MAD, as many as 3.5 deviations are in a normal
-- distribution), by more than 20 % of the median, and by more than 1 unit of the currency. It takes 14 days to judge one.
-- A service is looked at up to the last day on which its provider has any cost: later ones are not in yet.
WITH daily AS (
  SELECT provider, service, currency, day, SUM(effective_cost) AS cost
  FROM `{dataset}.cost_charges`
  WHERE category = 'Usage' AND day < CURRENT_DATE()
  GROUP BY provider, service, currency, day
),

providers AS (
  SELECT provider, MAX(day) AS last_day FROM daily GROUP BY provider
),

services AS (
  SELECT provider, service, currency, MIN(day) AS first_day FROM daily GROUP BY provider, service, currency
),

calendar AS (
  SELECT services.provider, services.service, services.currency, day
  FROM services
  JOIN providers ON providers.provider = services.provider
  CROSS JOIN UNNEST(GENERATE_DATE_ARRAY(services.first_day, providers.last_day)) AS day
),

series AS (
  SELECT calendar.provider, calendar.service, calendar.currency, calendar.day, COALESCE(daily.cost, 0) AS cost
  FROM calendar
  LEFT JOIN daily
    ON
      daily.provider = calendar.provider AND daily.service = calendar.service AND daily.currency = calendar.currency
      AND daily.day = calendar.day
),

before AS (
  SELECT
    series.provider, series.service, series.currency, series.day, series.cost, earlier.cost AS earlier_cost
  FROM series
  JOIN series AS earlier
    ON
      earlier.provider = series.provider AND earlier.service = series.service AND earlier.currency = series.currency
      AND earlier.day BETWEEN DATE_SUB(series.day, INTERVAL 28 DAY) AND DATE_SUB(series.day, INTERVAL 1 DAY)
),

sorted_costs AS (
  SELECT
    provider, service, currency, day, cost, COUNT(*) AS days, ARRAY_AGG(earlier_cost ORDER BY earlier_cost) AS costs
  FROM before
  GROUP BY provider, service, currency, day, cost
  HAVING COUNT(*) >= 14
),

-- The median of an even number of days is the middle between two of them. (BIGNUMERIC is what these are in BigQuery
-- anyway; the emulator would go on with more decimals than it can multiply.)
medians AS (
  SELECT
    provider, service, currency, day, cost,
    CAST((costs[OFFSET(DIV((days - 1), 2))] + costs[OFFSET(DIV(days, 2))]) * NUMERIC '0.5' AS BIGNUMERIC) AS median
  FROM sorted_costs
),

distances AS (
  SELECT
    medians.provider, medians.service, medians.currency, medians.day, medians.cost, medians.median,
    ABS(before.earlier_cost - medians.median) AS distance
  FROM medians
  JOIN before
    ON
      before.provider = medians.provider AND before.service = medians.service AND before.currency = medians.currency
      AND before.day = medians.day
),

sorted_distances AS (
  SELECT
    provider, service, currency, day, cost, median, COUNT(*) AS days,
    ARRAY_AGG(distance ORDER BY distance) AS distances
  FROM distances
  GROUP BY provider, service, currency, day, cost, median
),

judged AS (
  SELECT
    *,
    CAST(
      (distances[OFFSET(DIV((days - 1), 2))] + distances[OFFSET(DIV(days, 2))]) * NUMERIC '0.5' AS BIGNUMERIC
    ) AS mad
  FROM sorted_distances
)

SELECT
  day, provider, service, currency, cost, median AS expected, cost - median AS difference,
  GREATEST(mad * NUMERIC '5.1891', ABS(median) * NUMERIC '0.2', 1) AS tolerance
FROM judged
WHERE ABS(cost - median) > GREATEST(mad * NUMERIC '5.1891', ABS(median) * NUMERIC '0.2', 1)
