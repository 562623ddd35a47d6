"""Provider credentials, the key that wraps their keys, and proofs of a caller's identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """What may be shown of a credential: never the secret."""

    org_slug: str
    credential_id: str
    provider: str
    created_at: datetime


class Credentials(Protocol):
    """Provider credentials, encrypted at rest."""

    def add(self, info: CredentialInfo, secret: str) -> None:
        """Store (or replace) a credential."""

    def list(self, org_slug: str) -> Sequence[CredentialInfo]:
        """Return the organisation's credentials in order of their ids."""

    def remove(self, org_slug: str, credential_id: str) -> None:
        """Delete a credential, or raise NotFoundError."""

    def secret(self, org_slug: str, credential_id: str) -> str:
        """Decrypt one credential of that organisation, or raise NotFoundError.

        Only steps call this, and the local check of credentials (``main.py validate --online``).
        """


class KeyEncryption(Protocol):
    """A key-encryption key: Cloud KMS, or a local file."""

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """Return the data key encrypted, together with what it is bound to. Raises TransientError, PermanentError."""

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Return the data key that ``wrap`` was given with the same ``bound_to``.

        Raises WrongKeyError if it was wrapped by another key or bound to something else, or is damaged.
        """


class TokenCheck(Protocol):
    """Checks OIDC tokens."""

    def email(self, token: str) -> str:
        """Return the account that the token was made for.

        Raises UnauthorizedError for a token that proves nothing, ForbiddenScopeError for an account that may not call,
        TransientError if it can't be checked now.
        """
