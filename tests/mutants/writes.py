"""What makes commits, loads and the content hash true for BigQuery."""

from tests.mutants.change import always, cut, never, swap, text
from tests.mutants.mutation import noticed_by

WRITES = (
    *noticed_by(
        "test_bigquery_loads",
        ("a load of Parquet names JSON columns", "spooled_fields", never("c.type == 'JSON'")),
    ),
    *noticed_by(
        "test_bigquery_datasets",
        ("a dataset is made whatever was not found", "BigQueryTables.create", always("NO_DATASET not in str(error)")),
        (
            "a table in another location is taken",
            "BigQueryTables.find",
            cut("self._check_location(f'Table {target}', found.location)"),
        ),
        (
            "a new table in another location is taken",
            "BigQueryTables.create",
            cut("self._check_location(f'Table {target}', made.location)"),
        ),
        (
            "a dataset in another location is taken",
            "BigQueryTables.make_dataset",
            cut("self._check_location(f'Dataset {dataset}', found.location)"),
        ),
        (
            "who may not make a dataset is not told what to grant",
            "BigQueryTables.make_dataset",
            swap("_making_dataset(f'make dataset {dataset}')", "translated(f'make dataset {dataset}')"),
        ),
    ),
    *noticed_by(
        "test_spool_hash",
        ("of a key that comes twice the last one counts", "_first_wins", swap("reversed(pairs)", "pairs")),
        ("whole numbers of any size stay whole", "_whole", always("-(2**63) <= number < 2**64")),
        ("numbers of 16 digits are written out", "json_text.MOST_DIGITS", swap("15", "16")),
        ("JSON's null is a value of its own", "fast_hash._parts", never("if kind == 'JSON'")),
    ),
    *noticed_by(
        "test_external_file -k ahead",
        ("records in the file are read ahead of", "reading.ahead", never("block.batch is None")),
    ),
    *noticed_by(
        "test_delivery_parts",
        ("an earlier attempt at a part counts", "parts.chosen", swap("latest[...].fence < part.fence", "True")),
    ),
    *noticed_by(
        "test_parts",
        ("a delivery that lacks a part is committed", "parts.chosen", swap("name not in latest", "False")),
        ("an attempt that lost its part lists it", "Writer.write", never("isinstance(last, PartRead)")),
        ("bad rows of parts are not added up", "Writer._commit_parts", never("bad > most")),
    ),
    *noticed_by(
        "test_attempt",
        (
            "rows of a processor that fills staging, too, hide what it filled",
            "Writer._write",
            never("spooled.rows and for_sql.made"),
        ),
    ),
    *noticed_by(
        "test_commit_fence -k gate",
        ("a commit writes without a gate", "commit_sql.READ", text("WHEN gates = 0 THEN 'gate{{}}'")),
    ),
    *noticed_by(
        "test_commit_fence -k filled",
        ("an empty ledger stays empty", "Tables.fill_ledger", cut("self._run(...)")),
    ),
    *noticed_by(
        "test_verify -k 'comes_back or otherwise or first_definition'",
        ("verify reads every row", "Verifier._hash", never("stored == write.content_hash")),
        (
            "old receipts are hashed the new way",
            "Verifier._hash",
            always("write.content_hash.startswith(hashing.VERSION)"),
        ),
        ("a hash that differs is believed at once", "Verifier._hash", always("stored == write.content_hash")),
    ),
)
