from collections.abc import Iterator
from pathlib import Path

import pytest

from common import bootstrap
from common.processors import registry
from tests.harness import Harness


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    yield Harness(tmp_path, monkeypatch)
    bootstrap.use(None)
    registry.processor.cache_clear()
