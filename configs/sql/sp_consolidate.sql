-- Proves that cost_data_standard_1_3 (p_source) holds what its sources say, each row once and to the last digit: by
-- pipeline, credential, provider, currency and day, rows in = rows out and sum in = SUM(BilledCost). Fills p_staging
-- (cost_consolidation) with one row each, or fails with the differences. {dataset} is set when it is deployed.
--
-- All pipelines write the FOCUS table themselves, so there is nothing to union but much to prove. A source is a table
-- that a procedure turns into FOCUS rows; one that the organisation does not have yet is left out. To add a source, add
-- a block that says what its rows amount to. A pipeline in the FOCUS table without any known source is told as such.
--
-- A service that a GenAI pipeline and another one (the Cloud Billing export) both bring on one day is counted twice.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_consolidate`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  DECLARE v_tables ARRAY<STRING>;
  DECLARE v_of_days STRING DEFAULT 'x_org_slug = @org AND x_pipeline_run_date BETWEEN @first_day AND @last_day';
  DECLARE v_in STRING DEFAULT """
    SELECT
      '' AS pipeline, '' AS credential, '' AS provider, '' AS currency, DATE '1970-01-01' AS day, '' AS source,
      0 AS rows_in, 0 AS rows_unpriced, BIGNUMERIC '0' AS amount
    FROM (SELECT 1 AS one) WHERE one = 0
  """;
  DECLARE v_known STRING DEFAULT "SELECT '' AS pipeline, '' AS source, FALSE AS is_genai FROM (SELECT 1 AS one) WHERE one = 0";
  DECLARE v_problems STRING;

  SET v_tables = (SELECT ARRAY_AGG(table_name) FROM `{dataset}`.INFORMATION_SCHEMA.TABLES);

  IF 'genai_payg_cost' IN UNNEST(v_tables) THEN
    SET v_known = CONCAT(v_known, """
      UNION ALL
      SELECT DISTINCT x_pipeline_id AS pipeline, 'genai_payg_cost' AS source, TRUE AS is_genai
      FROM `{dataset}.genai_payg_cost` WHERE x_org_slug = @org
    """);
    -- Priced usage of the days that the provider has not reported; of the others only how many rows it has.
    SET v_in = CONCAT(v_in, """
      UNION ALL
      SELECT
        x_pipeline_id AS pipeline, x_credential_id AS credential, provider_name AS provider, currency,
        x_pipeline_run_date AS day, 'genai_payg_cost' AS source,
        COUNTIF(cost IS NOT NULL) AS rows_in, COUNTIF(cost IS NULL) AS rows_unpriced,
    """, IF('genai_reported_cost' IN UNNEST(v_tables), """
        COALESCE(SUM(IF(
          CONCAT(x_pipeline_id, '/', x_credential_id, '/', CAST(x_pipeline_run_date AS STRING), '/', account_id) IN (
            SELECT CONCAT(x_pipeline_id, '/', x_credential_id, '/', CAST(x_pipeline_run_date AS STRING), '/', account_id)
            FROM `{dataset}.genai_reported_cost` WHERE x_org_slug = @org
          ), 0, cost)), 0) AS amount
    """, 'COALESCE(SUM(cost), 0) AS amount'), """
      FROM `{dataset}.genai_payg_cost` WHERE """, v_of_days, """
      GROUP BY x_pipeline_id, x_credential_id, provider_name, currency, x_pipeline_run_date
    """);
  END IF;

  IF 'genai_reported_cost' IN UNNEST(v_tables) THEN
    SET v_in = CONCAT(v_in, """
      UNION ALL
      SELECT
        x_pipeline_id AS pipeline, x_credential_id AS credential, provider_name AS provider, currency,
        x_pipeline_run_date AS day, 'genai_payg_cost' AS source, 0 AS rows_in, 0 AS rows_unpriced,
        SUM(amount) + SUM(COALESCE(credit, 0)) AS amount
      FROM `{dataset}.genai_reported_cost` WHERE """, v_of_days, """
      GROUP BY x_pipeline_id, x_credential_id, provider_name, currency, x_pipeline_run_date
    """);
  END IF;

  IF 'cloud_focus_export' IN UNNEST(v_tables) THEN
    SET v_known = CONCAT(v_known, """
      UNION ALL
      SELECT DISTINCT x_pipeline_id AS pipeline, 'cloud_focus_export' AS source, FALSE AS is_genai
      FROM `{dataset}.cloud_focus_export` WHERE x_org_slug = @org
    """);
    SET v_in = CONCAT(v_in, """
      UNION ALL
      SELECT
        x_pipeline_id AS pipeline, x_credential_id AS credential,
        COALESCE(ProviderName, ServiceProviderName, PublisherName) AS provider, BillingCurrency AS currency,
        x_pipeline_run_date AS day, 'cloud_focus_export' AS source, COUNT(*) AS rows_in, 0 AS rows_unpriced,
        SUM(BilledCost) AS amount
      FROM `{dataset}.cloud_focus_export` WHERE """, v_of_days, """
      GROUP BY x_pipeline_id, x_credential_id, COALESCE(ProviderName, ServiceProviderName, PublisherName),
        BillingCurrency, x_pipeline_run_date
    """);
  END IF;

  IF 'gcp_billing_export' IN UNNEST(v_tables) THEN
    SET v_known = CONCAT(v_known, """
      UNION ALL
      SELECT DISTINCT x_pipeline_id AS pipeline, 'gcp_billing_export' AS source, FALSE AS is_genai
      FROM `{dataset}.gcp_billing_export` WHERE x_org_slug = @org
    """);
    -- What Google invoices: the cost and all credits of each row, whatever becomes a row of its own.
    SET v_in = CONCAT(v_in, """
      UNION ALL
      SELECT
        x_pipeline_id AS pipeline, x_credential_id AS credential, 'Google Cloud' AS provider, currency,
        x_pipeline_run_date AS day, 'gcp_billing_export' AS source, COUNT(*) AS rows_in, 0 AS rows_unpriced,
        SUM(cost) + SUM(COALESCE((
          SELECT SUM(CAST(JSON_VALUE(c, '$.amount') AS BIGNUMERIC)) FROM UNNEST(JSON_QUERY_ARRAY(credits)) AS c
        ), 0)) AS amount
      FROM `{dataset}.gcp_billing_export` WHERE """, v_of_days, """
      GROUP BY x_pipeline_id, x_credential_id, currency, x_pipeline_run_date
    """);
  END IF;

  IF 'subscription_cost' IN UNNEST(v_tables) THEN
    SET v_known = CONCAT(v_known, """
      UNION ALL
      SELECT DISTINCT x_pipeline_id AS pipeline, 'subscription_cost' AS source, FALSE AS is_genai
      FROM `{dataset}.subscription_cost` WHERE x_org_slug = @org
    """);
    SET v_in = CONCAT(v_in, """
      UNION ALL
      SELECT
        x_pipeline_id AS pipeline, x_credential_id AS credential, vendor AS provider, currency,
        x_pipeline_run_date AS day, 'subscription_cost' AS source, COUNT(*) AS rows_in, 0 AS rows_unpriced,
        SUM(billed_cost) AS amount
      FROM `{dataset}.subscription_cost` WHERE """, v_of_days, """
      GROUP BY x_pipeline_id, x_credential_id, vendor, currency, x_pipeline_run_date
    """);
  END IF;

  EXECUTE IMMEDIATE CONCAT("""
    INSERT INTO `""", p_staging, """` (
      x_pipeline_run_date, x_org_slug, source_pipeline_id, source_credential_id, provider, currency, source,
      rows_in, rows_unpriced, rows_out, focus_rows, sum_in, sum_out, proof
    )
    WITH both_sides AS (
      SELECT
        pipeline, credential, provider, currency, day, rows_in, rows_unpriced, amount AS sum_in,
        0 AS rows_out, 0 AS focus_rows, BIGNUMERIC '0' AS sum_out
      FROM (""", v_in, """)
      UNION ALL
      SELECT
        -- ProviderName, not ServiceProviderName, which for a marketplace charge is the seller
        x_pipeline_id AS pipeline, x_credential_id AS credential, ProviderName AS provider,
        BillingCurrency AS currency, x_pipeline_run_date AS day,
        0 AS rows_in, 0 AS rows_unpriced, BIGNUMERIC '0' AS sum_in,
        IF(ChargeCategory = 'Usage' OR x_SourceRows IS NULL, COALESCE(x_SourceRows, 1), 0) AS rows_out,
        1 AS focus_rows, BilledCost AS sum_out
      FROM `""", p_source, """` WHERE """, v_of_days, """
    ),
    summed AS (
      SELECT
        pipeline, credential, provider, currency, day, SUM(rows_in) AS rows_in, SUM(rows_unpriced) AS rows_unpriced,
        SUM(rows_out) AS rows_out, SUM(focus_rows) AS focus_rows, SUM(sum_in) AS sum_in, SUM(sum_out) AS sum_out
      FROM both_sides
      GROUP BY pipeline, credential, provider, currency, day
    ),
    known AS (""", v_known, """),
    sources AS (SELECT pipeline, MIN(source) AS source FROM known GROUP BY pipeline)
    SELECT
      day AS x_pipeline_run_date,
      @org AS x_org_slug,
      s.pipeline AS source_pipeline_id,
      credential AS source_credential_id,
      provider,
      currency,
      COALESCE(source, 'none') AS source,
      IF(source IS NULL, NULL, rows_in) AS rows_in,
      IF(source IS NULL, NULL, rows_unpriced) AS rows_unpriced,
      rows_out,
      focus_rows,
      IF(source IS NULL, NULL, sum_in) AS sum_in,
      sum_out,
      CASE
        WHEN source IS NULL THEN 'no source'
        WHEN rows_in = rows_out AND sum_in = sum_out THEN 'equal'
        ELSE 'different'
      END AS proof
    FROM summed AS s
    LEFT JOIN sources ON sources.pipeline = s.pipeline
  """)
  USING p_org_slug AS org, p_start_date AS first_day, p_end_date AS last_day;

  EXECUTE IMMEDIATE CONCAT("""
    SELECT STRING_AGG(line, '; ' ORDER BY line LIMIT 20)
    FROM (
      SELECT CONCAT(
        CAST(x_pipeline_run_date AS STRING), ' ', provider, ' ', currency, ' of ', source_pipeline_id, ': ',
        CAST(rows_in AS STRING), ' rows and ', CAST(sum_in AS STRING), ' in ', source, ', ',
        CAST(rows_out AS STRING), ' rows and ', CAST(sum_out AS STRING), ' in the FOCUS table'
      ) AS line
      FROM `""", p_staging, """` WHERE proof = 'different'
      UNION ALL
      SELECT CONCAT(
        CAST(g.day AS STRING), ' ', g.service, ': counted twice, by ', g.pipeline, ' and by ', o.pipeline
      ) AS line
      FROM (
        SELECT DISTINCT x_pipeline_run_date AS day, ServiceName AS service, x_pipeline_id AS pipeline
        FROM `""", p_source, """` WHERE """, v_of_days, """
          AND x_pipeline_id IN (SELECT pipeline FROM (""", v_known, """) WHERE is_genai)
      ) AS g
      JOIN (
        SELECT DISTINCT x_pipeline_run_date AS day, ServiceName AS service, x_pipeline_id AS pipeline
        FROM `""", p_source, """` WHERE """, v_of_days, """
          AND x_pipeline_id NOT IN (SELECT pipeline FROM (""", v_known, """) WHERE is_genai)
      ) AS o ON o.day = g.day AND o.service = g.service
    )
  """)
  INTO v_problems
  USING p_org_slug AS org, p_start_date AS first_day, p_end_date AS last_day;

  IF v_problems IS NOT NULL THEN
    RAISE USING MESSAGE = CONCAT('The FOCUS table does not add up to its sources. ', v_problems);
  END IF;
END
