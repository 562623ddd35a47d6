"""What an HTTP client needs to know of the step, or the check, that calls."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Calls(Protocol):
    """What a client needs to know of who calls: a step's context, or a check of credentials."""

    @property
    def credential_id(self) -> str:
        """Which credential is used, for messages."""

    @property
    def provider_url(self) -> Callable[[str], str]:
        """Base URL of a provider: from the registry, never from a request."""

    @property
    def info(self) -> Callable[[str], None]:
        """Told of retries."""

    @property
    def sleep(self) -> Callable[[float], None]:
        """Waits between tries."""

    @property
    def now(self) -> Callable[[], datetime]:
        """The time, in UTC."""

    def remaining_s(self) -> float:
        """Seconds that are left; raises StepTimeoutError when none are."""
