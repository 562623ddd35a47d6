"""The warehouse port on BigQuery and on its local emulator, through the real client.

Job ids are deterministic and so serve as idempotency keys: BigQuery refuses a repeated id (409), and the repeat then
attaches to the existing job. Table ids reach SQL only after a check of their form; values only as parameters.
"""

from common.adapters.bigquery.warehouse import BigQueryWarehouse

__all__ = ["BigQueryWarehouse"]
