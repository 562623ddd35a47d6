"""The key-encryption key in Cloud KMS, which wraps and unwraps data keys; the key itself never leaves it.

Requests and responses are checked end to end with CRC32C, as Google advises:
https://cloud.google.com/kms/docs/data-integrity-guidelines
"""

import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from cachetools import TTLCache

from common.access.sealing import WrongKeyError
from common.adapters.google.firestore_client import BACKOFF, PATIENCE_S
from common.adapters.google_errors import Service, short
from common.platform.errors import PermanentError, PipelineOpsError, TransientError
from common.platform.retry import countdown, retried

TRIES = 4
REMEMBERED = 200
REMEMBERED_S = 300.0
"""A process opens a secret again for this long without calling KMS: without it, a step costs three times as much."""


def _own(failed: str, error: Exception) -> PipelineOpsError | None:
    from google.api_core import exceptions

    match error:
        case exceptions.InvalidArgument() if "crc32c" in str(error).lower() or "checksum" in str(error).lower():
            return TransientError(f"{failed} what was sent arrived damaged: {short(error)}")
        case exceptions.InvalidArgument():
            return WrongKeyError(f"Cloud KMS says that it belongs to another key or place: {short(error)}.")
        case _:
            return None


KMS = Service(
    "Cloud KMS",
    not_found="Check PIPELINE_OPS_KMS_KEY.",
    forbidden="Give the function's service account roles/cloudkms.cryptoKeyEncrypterDecrypter on that key.",
    precondition="Enable the key's version, or restore it in time.",
    own=_own,
)


class CloudKms:
    """Wraps data keys with a symmetric key of Cloud KMS. ``endpoint`` replaces Google's server."""

    def __init__(self, key_name: str, endpoint: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._endpoint = key_name, endpoint
        self._lock = threading.Lock()
        self._known: TTLCache[tuple[bytes, bytes], bytes] = TTLCache(REMEMBERED, REMEMBERED_S, clock)

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """Return the encrypted data key. Raises TransientError, PermanentError."""
        request = {
            "name": self._name,
            "plaintext": key,
            "plaintext_crc32c": _crc(key),
            "additional_authenticated_data": bound_to,
            "additional_authenticated_data_crc32c": _crc(bound_to),
        }

        def whole(answer: Any) -> bool:
            verified = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
            return bool(verified) and answer.ciphertext_crc32c == _crc(answer.ciphertext)

        answer = self._asked("wrap a key", lambda left: self._client.encrypt(request, retry=None, timeout=left), whole)
        # A secret wrapped with another key could not be opened with this one.
        if not answer.name.startswith(f"{self._name}/cryptoKeyVersions/"):
            raise PermanentError(
                f"Cloud KMS wrapped a key with {answer.name!r}, which is no version of {self._name!r}."
            )
        return bytes(answer.ciphertext)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Return the data key. Raises WrongKeyError, TransientError, PermanentError."""
        with self._lock:  # cachetools' caches are not thread-safe
            if (known := self._known.get((wrapped, bound_to))) is not None:
                return known
        request = {
            "name": self._name,
            "ciphertext": wrapped,
            "ciphertext_crc32c": _crc(wrapped),
            "additional_authenticated_data": bound_to,
            "additional_authenticated_data_crc32c": _crc(bound_to),
        }
        answer = self._asked(
            "unwrap a key",
            lambda left: self._client.decrypt(request, retry=None, timeout=left),
            lambda answer: bool(answer.plaintext_crc32c == _crc(answer.plaintext)),
        )
        key = bytes(answer.plaintext)
        with self._lock:
            self._known[wrapped, bound_to] = key
        return key

    def _asked(self, what: str, ask: Callable[[float], Any], whole: Callable[[Any], bool]) -> Any:
        """Call KMS, retrying a few times until the response is intact; translate Google's errors."""
        left_s = countdown(PATIENCE_S)

        def once() -> Any:
            try:
                answer = ask(left_s())
            except Exception as error:
                # Not chained: the cause holds the request, and the request holds the data key.
                raise KMS.error(what, error) or error from None
            if not whole(answer):
                raise TransientError(f"Cloud KMS could not {what}: what arrived is damaged (its CRC32C is another).")
            return answer

        return retried(once, on=TransientError, backoff=BACKOFF, tries=TRIES, left_s=left_s)

    @cached_property
    def _client(self) -> Any:
        from google.cloud.kms_v1 import KeyManagementServiceClient

        if self._endpoint is None:
            return KeyManagementServiceClient()
        import grpc
        from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

        channel = grpc.insecure_channel(self._endpoint)
        return KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))


def _crc(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))
