"""The warehouse port on BigQuery, and on the local emulator of it, through the real client.

Job ids are deterministic, which makes them idempotency keys: BigQuery refuses a repeated id (409), and the repeat then
attaches to the job that is there. Table ids reach SQL only after a check of their form; values only as parameters.
"""

from common.adapters.bigquery.warehouse import BigQueryWarehouse

__all__ = ["BigQueryWarehouse"]
