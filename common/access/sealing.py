"""Secrets at rest: each under a key of its own (AES-256-GCM), which a key-encryption key wraps.

Kind, organisation and name are authenticated twice, with the data key and with the secret: a record that was copied
to another place does not open, even with the right key-encryption key.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Any

from common.platform.errors import ConfigError, PermanentError
from common.ports.secrets import KeyEncryption

KEY_BYTES = 32
NONCE_BYTES = 12
"""GCM's standard length. A random nonce is safe here, because each key encrypts a single secret."""

FORMAT = 1


class WrongKeyError(PermanentError):
    """A sealed secret does not open: wrong key, wrong place, or a changed record."""


class NoKey:
    """Used where no key-encryption key is set: refuses to seal and open, and says how to set one."""

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """Refuse."""
        raise self._refusal()

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Refuse."""
        raise self._refusal()

    @staticmethod
    def _refusal() -> ConfigError:
        return ConfigError(
            "PIPELINE_OPS_KMS_KEY is not set: in the cloud no secret is sealed or opened without Cloud KMS. Set it to "
            "projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>."
        )


class Sealer:
    """Seals secrets and opens them."""

    def __init__(self, keys: KeyEncryption) -> None:
        self._keys = keys

    def seal(self, secret: str, kind: str, org_slug: str, name: str) -> dict[str, Any]:
        """Return the secret encrypted, as JSON data, bound to its kind, organisation and name."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        bound_to, key, nonce = _place(kind, org_slug, name), os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
        return {
            "format": FORMAT,
            "key": _text(self._keys.wrap(key, bound_to)),
            "nonce": _text(nonce),
            "sealed": _text(AESGCM(key).encrypt(nonce, secret.encode(), bound_to)),
        }

    def open(self, sealed: Mapping[str, Any], kind: str, org_slug: str, name: str) -> str:
        """Return the secret that was sealed for the same kind, organisation and name. Raises WrongKeyError."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        bound_to = _place(kind, org_slug, name)
        try:
            wrapped, nonce, text = (
                base64.b64decode(sealed[part], validate=True) for part in ("key", "nonce", "sealed")
            )
            key = self._keys.unwrap(wrapped, bound_to)
            return AESGCM(key).decrypt(nonce, text, bound_to).decode()
        except (KeyError, TypeError, ValueError, binascii.Error, InvalidTag, WrongKeyError) as error:
            problem = str(error) if isinstance(error, WrongKeyError) else "its record was changed."
            # Without the cause: its traceback could show key material.
            raise WrongKeyError(
                f"The secret {name!r} of {org_slug} can't be opened: {problem} Store it again."
            ) from None


def _place(kind: str, org_slug: str, name: str) -> bytes:
    return f"{kind}\n{org_slug}\n{name}".encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
