"""Fixtures on Google's own emulators. Tests use projects of their own: what one leaves behind no other sees."""

from collections.abc import Iterator
from queue import Queue
from typing import Any
from uuid import uuid4

import pytest

from infra.local.google_emulators import GoogleEmulators, MissingProgramError

received: Queue[Any] = Queue()
"""What a function under functions-framework was given, which is executed as a module of its own."""


@pytest.fixture(scope="session")
def google_emulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleEmulators]:
    """Firestore and Pub/Sub, once for the whole session."""
    emulators = GoogleEmulators(tmp_path_factory.mktemp("google"))
    try:
        emulators.start()
    except MissingProgramError:
        pytest.skip("needs Java and the gcloud SDK's Firestore and Pub/Sub emulators")
    yield emulators
    emulators.stop()


@pytest.fixture
def google_project() -> str:
    """A project id that no other test uses."""
    return f"test-{uuid4().hex[:12]}"
