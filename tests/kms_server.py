"""Cloud KMS's Encrypt and Decrypt on loopback: the real messages over gRPC, AES-GCM behind them, faults on demand.

There is no emulator of it. What it answers is what Google documents: INVALID_ARGUMENT for a wrong key or other
authenticated data, checksums both ways, the name of the version that was used.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import types

SERVICE = "google.cloud.kms.v1.KeyManagementService"
KEY = "projects/p/locations/europe-west1/keyRings/ring/cryptoKeys/secrets"
DAMAGED = grpc.StatusCode.DATA_LOSS
"""As a fault: the request arrives with other bytes than were sent."""


@dataclass
class KmsServer:
    """``faults`` are used up one a call: a gRPC status to refuse with, or a change of the answer."""

    endpoint: str = ""
    keys: dict[str, bytes] = field(default_factory=lambda: {KEY: os.urandom(32)})
    faults: list[grpc.StatusCode | Callable[[Any], None]] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)

    def encrypt(self, request: Any, context: Any) -> Any:
        key = self._key(request, context)
        _check(request.plaintext, request.plaintext_crc32c, context)
        _check(request.additional_authenticated_data, request.additional_authenticated_data_crc32c, context)
        nonce = os.urandom(12)
        text = nonce + AESGCM(key).encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        answer = types.EncryptResponse(
            name=f"{request.name}/cryptoKeyVersions/1",
            ciphertext=text,
            ciphertext_crc32c=google_crc32c.value(text),
            verified_plaintext_crc32c=True,
            verified_additional_authenticated_data_crc32c=True,
        )
        return self._spoilt(answer)

    def decrypt(self, request: Any, context: Any) -> Any:
        key = self._key(request, context)
        _check(request.ciphertext, request.ciphertext_crc32c, context)
        _check(request.additional_authenticated_data, request.additional_authenticated_data_crc32c, context)
        try:
            plain = AESGCM(key).decrypt(
                request.ciphertext[:12], request.ciphertext[12:], request.additional_authenticated_data
            )
        except (InvalidTag, ValueError):
            text = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return self._spoilt(types.DecryptResponse(plaintext=plain, plaintext_crc32c=google_crc32c.value(plain)))

    def _key(self, request: Any, context: Any) -> bytes:
        self.calls.append(request)
        if self.faults and self.faults[0] is DAMAGED:
            self.faults.pop(0)
            _check(b"", 1, context)
        if self.faults and isinstance(self.faults[0], grpc.StatusCode):
            context.abort(self.faults.pop(0), "as the test says")
        if request.name not in self.keys:
            context.abort(grpc.StatusCode.NOT_FOUND, f"CryptoKey {request.name} not found.")
        return self.keys[request.name]

    def _spoilt(self, answer: Any) -> Any:
        if self.faults and callable(self.faults[0]):
            self.faults.pop(0)(answer)  # type: ignore[operator]
        return answer


def _check(data: bytes, crc: int | None, context: Any) -> None:
    if crc != google_crc32c.value(data):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The checksum in field ..._crc32c did not match the data.")


@contextmanager
def kms() -> Iterator[KmsServer]:
    """Serve for the time of the block."""
    made = KmsServer()

    def handler(does: Any, asked: Any, answered: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            does, request_deserializer=asked.deserialize, response_serializer=answered.serialize
        )

    methods = {
        "Encrypt": handler(made.encrypt, types.EncryptRequest, types.EncryptResponse),
        "Decrypt": handler(made.decrypt, types.DecryptRequest, types.DecryptResponse),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    made.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield made
    finally:
        server.stop(None)
