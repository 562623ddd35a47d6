-- Whether the table has every column of FOCUS 1.3 that its contract has, and those of ours that the other checks read,
-- each of its type; and no other without an x_.
--
-- {dataset} and {name} are the table's dataset (project.dataset) and name. The list of names and types is filled in from
-- the contract (configs/schemas). The answer is that of values.sql. Where a column is missing or of another type, the
-- other checks can't be run. A table with these types can't hold a time without a zone, or an amount with a comma: that
-- is why types are a check.
WITH focus AS (
  SELECT SPLIT(pair, ' ')[OFFSET(0)] AS name, SPLIT(pair, ' ')[OFFSET(1)] AS type
  FROM UNNEST([
    {columns}
  ]) AS pair
),

found AS (
  SELECT column_name AS name, data_type AS type
  FROM `{dataset}`.INFORMATION_SCHEMA.COLUMNS
  WHERE table_name = '{name}'
),

failures AS (
  SELECT 'columns.missing' AS name, TO_JSON_STRING(STRUCT(focus.name AS column, focus.type AS wanted)) AS example
  FROM focus
  LEFT JOIN found ON found.name = focus.name
  WHERE found.name IS NULL

  UNION ALL

  SELECT
    'columns.type' AS name,
    TO_JSON_STRING(STRUCT(focus.name AS column, focus.type AS wanted, found.type AS found)) AS example
  FROM focus
  JOIN found ON found.name = focus.name
  WHERE found.type != focus.type

  UNION ALL

  SELECT 'columns.unknown' AS name, TO_JSON_STRING(STRUCT(found.name AS column, found.type AS found)) AS example
  FROM found
  LEFT JOIN focus ON focus.name = found.name
  WHERE focus.name IS NULL AND NOT STARTS_WITH(found.name, 'x_')
)

SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM failures
GROUP BY name
