"""What becomes of BigQuery's exceptions: what passes is tried again, the rest is told."""

import pytest
from google.api_core import exceptions

from common.adapters.bigquery.errors import ConflictError, translated
from common.platform.errors import PermanentError, PipelineOpsError, TransientError


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (exceptions.BadRequest("Transaction is aborted due to concurrent update against table t"), ConflictError),
        (exceptions.BadRequest("Too many DML statements outstanding against table t"), ConflictError),
        (exceptions.BadRequest("Failed to commit DuckLake transaction"), ConflictError),
        (exceptions.BadRequest("TransactionContext Error: Conflict on update!"), ConflictError),
        (exceptions.BadRequest('Catalog write-write conflict on create with "sp_x"'), ConflictError),
        (exceptions.Forbidden("Quota exceeded: Your project exceeded quota for bytes"), TransientError),
        (exceptions.InternalServerError("try again"), TransientError),
        (exceptions.BadRequest("Syntax error at [1:1]"), PermanentError),
        (exceptions.NotFound("no such table"), PermanentError),
    ],
)
def test_what_passes_once_others_are_done_is_a_conflict_and_a_mistake_is_final(
    error: Exception, becomes: type[PipelineOpsError]
) -> None:
    with pytest.raises(PipelineOpsError) as caught, translated("do it"):
        raise error
    assert type(caught.value) is becomes


@pytest.mark.parametrize(
    "raw",
    [
        "Required field ServiceName cannot be null",
        "Constraint Error: NOT NULL constraint failed: stage_8f2_unify_1.ServiceName",
    ],
)
def test_a_missing_value_names_its_column_and_no_table_of_the_warehouse(raw: str) -> None:
    with pytest.raises(PermanentError) as caught, translated("The call of sp_lift_focus_export failed."):
        raise exceptions.BadRequest(raw)
    assert "A row has no ServiceName, which the table needs." in str(caught.value)
    assert "stage" not in str(caught.value) and "constraint" not in str(caught.value).lower()
