-- Subscriptions (subscription_cost) as contract commitments of FOCUS 1.3: each cycle longer than a month, for what its
-- first day is charged. Fills p_staging; the engine commits from there with lineage. {dataset} is set when it is deployed.
--
-- A contract without a last day is agreed on until its cycle ends. One that ends within a cycle has paid it whole.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_subscription_commitments`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  -- Without a value:
  --   it is committed to Spend, not to Usage: ContractCommitmentQuantity, ContractCommitmentUnit
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_SourceColumns,
      BillingCurrency, ContractCommitmentCategory, ContractCommitmentCost, ContractCommitmentDescription,
      ContractCommitmentId, ContractCommitmentPeriodStart, ContractCommitmentPeriodEnd, ContractCommitmentType,
      ContractId, ContractPeriodStart, ContractPeriodEnd
    )
    SELECT
      x_pipeline_run_date, x_org_slug,
      '1.3' AS x_FocusVersion,
      JSON_OBJECT('vendor', vendor, 'service', service) AS x_SourceColumns,
      currency AS BillingCurrency,
      'Spend' AS ContractCommitmentCategory,
      commitment_cost AS ContractCommitmentCost,
      CONCAT(
        service, ', ', plan, ', ', CAST(seats AS STRING), ' seats, ', billing_cycle
      ) AS ContractCommitmentDescription,
      commitment_id AS ContractCommitmentId,
      TIMESTAMP(x_pipeline_run_date) AS ContractCommitmentPeriodStart,
      TIMESTAMP(covers_until) AS ContractCommitmentPeriodEnd,
      'Subscription' AS ContractCommitmentType,
      subscription_id AS ContractId,
      TIMESTAMP(contract_first_day) AS ContractPeriodStart,
      TIMESTAMP(
        GREATEST(COALESCE(DATE_ADD(contract_last_day, INTERVAL 1 DAY), covers_until), covers_until)
      ) AS ContractPeriodEnd
    FROM `%s`
    WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
      AND kind = 'cycle' AND commitment_id IS NOT NULL
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
