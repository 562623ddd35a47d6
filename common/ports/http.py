"""What an HTTP client needs from its caller, a step or a check."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol


class Calls(Protocol):
    """The caller of an HTTP client: a step's context, or a check of credentials."""

    @property
    def credential_id(self) -> str:
        """Which credential is used, for messages."""

    @property
    def provider_url(self) -> Callable[[str], str]:
        """Base URL of a provider: from the registry, never from a request."""

    @property
    def info(self) -> Callable[[str], None]:
        """Logs retries."""

    @property
    def sleep(self) -> Callable[[float], None]:
        """Waits between tries."""

    @property
    def now(self) -> Callable[[], datetime]:
        """The time, in UTC."""

    def remaining_s(self) -> float:
        """Seconds that are left; raises StepTimeoutError when none are, LostLeaseError when nobody wants the work."""

    def interrupts(self, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Have ``call`` called, by another thread, if the work has to end while the block runs."""
