"""Whoever changes a contract's columns raises its version, so that two tables of one version have the same columns."""

from hashlib import sha256

from common.platform.paths import CONFIGS
from common.tables.contract import Table, every_table

VERSIONS = {
    "cloud_commitment_export": (1, "8477a2dc82880cf8"),
    "cloud_focus_export": (1, "7caa6f1a29891920"),
    "contract_commitment_1_3": (1, "53524007c0cb3f12"),
    "cost_consolidation": (1, "43dd8f6c84a2f03e"),
    "cost_data_standard_1_3": (2, "c57fd08d9de09fc1"),
    "gcp_billing_export": (2, "2de080973918ea1f"),
    "gcp_services": (1, "f7f784c185622d8e"),
    "genai_balance": (1, "cd71f6ec1fff7afc"),
    "genai_payg_cost": (2, "a39fc8e3b3bf3f64"),
    "genai_payg_usage": (2, "addf0e0175fa9a18"),
    "genai_reported_cost": (1, "25363c2688f9fd12"),
    "org_meta_costs": (1, "3d7d7b90ab674485"),
    "org_meta_pipeline_runs": (1, "c891ba4cfae35cbe"),
    "org_meta_step_runs": (1, "c3427e99e9a03ec9"),
    "org_meta_transitions": (1, "8d97499bb2c91347"),
    "subscription_cost": (2, "84e2c8ed927f07f1"),
}


def fingerprint(table: Table) -> str:
    return sha256(repr([(c.name, c.type, c.mode) for c in table.columns]).encode()).hexdigest()[:16]


def test_columns_change_with_their_version_only() -> None:
    found = {table.table: (table.version, fingerprint(table)) for table in every_table(CONFIGS)}
    hint = "Columns have changed: raise `version` in the contract and put the new pair here"
    assert found == VERSIONS, f"{hint}, e.g. {dict(found.items() - VERSIONS.items())}"


def test_every_shipped_table_and_column_says_what_it_is() -> None:
    for table in every_table(CONFIGS):
        assert table.description
        assert [column.name for column in table.all_columns if not column.description] == [], table.table
