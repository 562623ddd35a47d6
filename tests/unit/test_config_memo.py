"""What is made from files is made again when one of them changes, and only then."""

import os
import time
from pathlib import Path

import pytest

from common.config.memo import TOO_FRESH_NS, Memo

OLD_NS = 10 * TOO_FRESH_NS


class Maker:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


def age(path: Path, by_ns: int = OLD_NS) -> None:
    at = time.time_ns() - by_ns
    os.utime(path, ns=(at, at))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yml"
    path.write_text("a")
    age(path)
    return path


def test_an_unchanged_file_is_read_once(file: Path) -> None:
    memo, make = Memo[int](), Maker()
    assert [memo.get([file], make) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("change", ["text", "replaced", "gone"])
def test_a_changed_file_is_read_again(file: Path, change: str) -> None:
    memo, make = Memo[int](), Maker()
    memo.get([file], make)
    at = file.stat().st_mtime_ns
    if change == "gone":
        file.unlink()
    elif change == "text":
        file.write_text("longer")
        os.utime(file, ns=(at, at))
    else:
        other = file.with_name("b.yml")
        other.write_text("b")
        os.utime(other, ns=(at, at))
        other.rename(file)
    assert memo.get([file], make) == 2


def test_a_file_that_has_only_just_changed_is_not_trusted(file: Path) -> None:
    memo, make = Memo[int](), Maker()
    age(file, 0)
    assert [memo.get([file], make) for _ in range(2)] == [1, 2]


def test_a_new_name_in_a_folder_is_seen(tmp_path: Path, file: Path) -> None:
    memo, make = Memo[int](), Maker()
    age(tmp_path)
    assert [memo.get([tmp_path], make) for _ in range(2)] == [1, 1]
    file.with_name("new.yml").write_text("x")
    age(tmp_path, OLD_NS - 1)
    assert memo.get([tmp_path], make) == 2
