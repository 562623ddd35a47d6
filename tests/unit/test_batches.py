"""Rows in batches: bounded, in order, the bad ones apart."""

from common.writes.bad_rows import BadRow
from common.writes.batch import BATCH_CHARS, BATCH_ROWS, batches


def test_a_batch_is_bounded_and_no_row_is_lost() -> None:
    made = list(batches({"n": n} for n in range(BATCH_ROWS + 1)))
    assert [batch.count for batch in made] == [BATCH_ROWS, 1]
    assert [row["n"] for batch in made for row in batch.rows] == list(range(BATCH_ROWS + 1))  # type: ignore[index]


def test_a_batch_is_bounded_in_characters_and_a_row_of_its_own_may_be_longer() -> None:
    third = "a" * (BATCH_CHARS // 3)
    assert [batch.count for batch in batches({"text": third} for _ in range(7))] == [4, 3]
    assert [batch.count for batch in batches({"text": third * 4} for _ in range(2))] == [1, 1]


def test_bad_rows_count_and_are_kept_apart() -> None:
    bad = BadRow("why", "file:1", "{}")
    (batch,) = batches([{"n": 1}, bad])
    assert batch.rows == [{"n": 1}] and batch.bad == [bad] and batch.count == 2


def test_no_rows_make_no_batch() -> None:
    assert list(batches([])) == []
