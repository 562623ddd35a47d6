-- Contract commitments of a FOCUS export (cloud_commitment_export) in FOCUS 1.3, the first version that has them. Fills
-- p_staging; the engine commits from there with lineage. {dataset} is set when it is deployed.
--
-- 1.3 contradicts itself about ContractId: its table of columns allows NULL, its rules do not. The rules hold here, and
-- they allow it to be the ContractCommitmentId, so that is what a commitment without a contract gets.
CREATE OR REPLACE PROCEDURE `{dataset}.sp_lift_commitments`(
  p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING, p_credential_id STRING,
  p_start_date DATE, p_end_date DATE
)
BEGIN
  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s` (
      x_pipeline_run_date, x_org_slug, x_FocusVersion, x_SourceColumns,
      BillingCurrency, ContractCommitmentCategory, ContractCommitmentCost, ContractCommitmentDescription,
      ContractCommitmentId, ContractCommitmentPeriodEnd, ContractCommitmentPeriodStart, ContractCommitmentQuantity,
      ContractCommitmentType, ContractCommitmentUnit, ContractId, ContractPeriodEnd, ContractPeriodStart
    )
    SELECT
      x_pipeline_run_date, x_org_slug,
      '1.3' AS x_FocusVersion,
      extra AS x_SourceColumns,
      BillingCurrency, ContractCommitmentCategory, ContractCommitmentCost, ContractCommitmentDescription,
      ContractCommitmentId, ContractCommitmentPeriodEnd, ContractCommitmentPeriodStart, ContractCommitmentQuantity,
      ContractCommitmentType, ContractCommitmentUnit,
      COALESCE(ContractId, ContractCommitmentId) AS ContractId,
      ContractPeriodEnd, ContractPeriodStart
    FROM `%s`
    WHERE x_org_slug = ? AND x_pipeline_id = ? AND x_credential_id = ? AND x_pipeline_run_date BETWEEN ? AND ?
  """, p_staging, p_source)
  USING p_org_slug, p_pipeline_id, p_credential_id, p_start_date, p_end_date;
END
