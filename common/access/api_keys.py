"""API keys: ``pops_<org>_<key id>_<secret>``. The secret is shown once and kept as a hash; see decisions/0010.

A key is one record. Its last use is a separate one: writing it must not change the version that a verified key has.
"""

import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from common.access.api_key_check import KeyCheck, hashed
from common.access.audit import Audit
from common.platform.errors import (
    ConflictingStateError,
    ForbiddenScopeError,
    NotFoundError,
    RequestError,
    StaleRecordError,
    UnauthorizedError,
    nearest,
)
from common.platform.logs import logger
from common.platform.retry import AT_ONCE, retried
from common.ports.records import Record, Records

KIND, USES = "keys", "key_uses"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
TOKEN = re.compile(r"pops_([a-z][a-z0-9_]{1,49})_(k[0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
"""Read from the right: an organisation's name may hold underscores, key id and secret don't."""

SECRET_BYTES = 32
LIVE_KEYS_A_NAME = 2
"""The new key and the one it replaces, until every caller has switched."""

MAX_LIVE_KEYS = 100
MAX_GRACE = timedelta(days=365)
NOTED_EVERY = timedelta(minutes=5)
"""How often a process records the use of a key: not with each request, which would add a write to all of them."""

TRIES = 5
OPERATOR = "operator"


class Scope(StrEnum):
    """What a key may do. Each contains those before it."""

    READ = "read"  # look at runs, logs and settings
    RUN = "run"  # start runs and change their course
    ADMIN = "admin"  # keys, credentials, settings

    def covers(self, needed: "Scope") -> bool:
        """Return whether a key of this scope may do what needs ``needed``."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a request's key. ``org_slug`` is None for the operator, whose token opens every organisation."""

    org_slug: str | None
    key_id: str
    scope: Scope

    @property
    def who(self) -> str:
        """How audit rows name the caller."""
        return OPERATOR if self.org_slug is None else f"key:{self.key_id}"

    def opens(self, org_slug: str) -> bool:
        """Return whether the caller may know that this organisation exists. If not, its paths are not found."""
        return self.org_slug is None or self.org_slug == org_slug

    def needs(self, scope: Scope) -> None:
        """Raise ForbiddenScopeError if the caller may not do what needs ``scope``."""
        if not self.scope.covers(scope):
            raise ForbiddenScopeError(f"This needs a key of scope {scope}, and the key's scope is {self.scope}.")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be shown of a key: never the secret, never its hash."""

    org_slug: str
    key_id: str
    name: str
    scope: Scope
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def status(self, now: datetime) -> str:
        """Return ``live``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "live"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. ``token`` is the complete key, which is stored nowhere."""

    info: KeyInfo
    token: str

    def __repr__(self) -> str:  # without the token: values end up in logs and stack traces
        return f"NewKey({self.info.key_id})"


class Keys:
    """The API keys of all organisations. ``operator_token`` opens every organisation; None: no operator."""

    def __init__(
        self, records: Records, audit: Audit, now: Callable[[], datetime], operator_token: str | None = None
    ) -> None:
        self._records, self._audit, self._now = records, audit, now
        self._operator = operator_token
        self._check = KeyCheck()
        self._noted: dict[str, datetime] = {}

    def create(self, org_slug: str, name: str, scope: Scope, *, who: str, lifetime: timedelta | None = None) -> NewKey:
        """Make the first key of a name; return it with its secret. Raises RequestError, ConflictingStateError."""
        if not NAME.fullmatch(name):
            raise RequestError(f"name: {name[:80]!r} must be lower-case letters, digits, '_' and '-', a letter first.")
        live = self._live(org_slug)
        if any(key.name == name for key in live):
            raise ConflictingStateError(f"{org_slug} has a live key {name!r}: rotate it, or revoke it first.")
        if len(live) >= MAX_LIVE_KEYS:
            raise ConflictingStateError(
                f"{org_slug} has {len(live)} live keys, which is the maximum: revoke some first."
            )
        made = self._make(org_slug, name, scope, who, lifetime)
        self._tell(made.info, who, "key.create")
        return made

    def rotate(self, org_slug: str, name: str, *, who: str, grace: timedelta | None = None) -> NewKey:
        """Make a further key of a name, with the scope of the newest one; return it with its secret.

        The newest key so far stays valid (for ``grace``, if given); older ones are revoked. Raises NotFoundError if
        the name has no live key.
        """
        if grace is not None and not timedelta(0) <= grace <= MAX_GRACE:
            raise RequestError(f"grace: must be 0 to {MAX_GRACE.days} days.")
        before = self._of_name(org_slug, name)
        if not before:
            raise NotFoundError(
                f"{org_slug} has no live key {name!r}.{nearest(name, {key.name for key in self._live(org_slug)})}"
            )
        # Before and after, so that neither a crash in between nor a concurrent rotation leaves more than two live keys.
        self._trim(before, LIVE_KEYS_A_NAME - 1, who)
        made = self._make(org_slug, name, before[0].scope, who, None)
        if grace is not None:
            until = self._now() + grace
            self._change(before[0], lambda body: _ending(body, until))
        self._tell(made.info, who, "key.rotate")
        self._trim(self._of_name(org_slug, name), LIVE_KEYS_A_NAME, who)
        return made

    def revoke(self, org_slug: str, key_id: str, *, who: str) -> KeyInfo:
        """Revoke a key, from the next request on; return it. A revoked one stays as it is. Raises NotFoundError."""
        key = next((key for key in self.list(org_slug) if key.key_id == key_id), None)
        if key is None:
            known = [key.key_id for key in self.list(org_slug)]
            raise NotFoundError(f"{org_slug} has no key {key_id[:80]!r}.{nearest(key_id, known)}")
        if key.revoked_at is not None:
            return key
        changed = self._change(key, lambda body: {**body, "revoked_at": _text(self._now())})
        self._tell(key, who, "key.revoke")
        return _info(org_slug, changed, key.last_used_at)

    def list(self, org_slug: str) -> Sequence[KeyInfo]:
        """Return the organisation's keys, newest first, including revoked and expired ones."""
        uses = {use.name: _time(use.body["at"]) for use in self._records.list(USES, org_slug)}
        keys = [_info(org_slug, record, uses.get(record.name)) for record in self._records.list(KIND, org_slug)]
        return sorted(keys, key=_age, reverse=True)

    def caller(self, authorization: str | None) -> Caller:
        """Return the owner of the key in an ``Authorization`` header (``Bearer <key>``).

        Raises UnauthorizedError, which does not reveal what is wrong with a key, and TransientError when too many are
        being checked. The record is read each time, so a revoked key stops working at once.
        """
        token = _bearer(authorization)
        # In constant time; and an operator token that is not set equals nothing.
        if self._operator and hmac.compare_digest(token.encode(), self._operator.encode()):
            return Caller(None, OPERATOR, Scope.ADMIN)
        parts = TOKEN.fullmatch(token)
        if parts is None:
            raise _refused()
        org_slug, key_id, secret = parts.groups()
        record = self._records.get(KIND, org_slug, key_id)
        if not self._check.holds(token, secret, record) or record is None:
            raise _refused()
        key = _info(org_slug, record, None)
        # Only the holder of the secret gets this far, so the status reveals nothing.
        if (status := key.status(self._now())) != "live":
            raise UnauthorizedError(f"The API key is {status}. Ask for a new one: main.py keys rotate.")
        self._note(key)
        return Caller(org_slug, key_id, key.scope)

    def _note(self, key: KeyInfo) -> None:
        """Record that the key was used, at most every NOTED_EVERY. A failing store does not fail the request."""
        now, before = self._now(), self._noted.get(key.key_id)
        if before is not None and now - before < NOTED_EVERY:
            return
        self._noted[key.key_id] = now  # before the write: a store that is down is not tried with each request
        try:
            self._records.put(USES, key.org_slug, key.key_id, {"at": _text(now)})
        except Exception:
            logger.warning("The use of key %s could not be recorded", key.key_id, exc_info=True)

    def _make(self, org_slug: str, name: str, scope: Scope, who: str, lifetime: timedelta | None) -> NewKey:
        key_id, secret, now = f"k{secrets.token_hex(6)}", secrets.token_hex(SECRET_BYTES), self._now()
        body = {
            "name": name,
            "scope": str(scope),
            "created_at": _text(now),
            "created_by": who,
            "expires_at": None if lifetime is None else _text(now + lifetime),
            "revoked_at": None,
            "secret": hashed(secret),
        }
        record = self._records.put(KIND, org_slug, key_id, body, expected=0)
        return NewKey(_info(org_slug, record, None), f"pops_{org_slug}_{key_id}_{secret}")

    def _trim(self, newest_first: Sequence[KeyInfo], keep: int, who: str) -> None:
        for key in newest_first[keep:]:
            self.revoke(key.org_slug, key.key_id, who=who)

    def _change(self, key: KeyInfo, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Record:
        """Change a key's record by compare-and-set: a revocation must not be undone by a concurrent rotation."""

        def once() -> Record:
            record = self._records.get(KIND, key.org_slug, key.key_id)
            if record is None:
                raise NotFoundError(f"{key.org_slug} has no key {key.key_id!r}.")
            body = change(dict(record.body))
            return self._records.put(KIND, key.org_slug, key.key_id, body, expected=record.version)

        try:
            return retried(once, on=StaleRecordError, backoff=AT_ONCE, tries=TRIES)
        except StaleRecordError:
            raise ConflictingStateError(f"Key {key.key_id} is being changed by others. Try again.") from None

    def _live(self, org_slug: str) -> Sequence[KeyInfo]:
        return [key for key in self.list(org_slug) if key.status(self._now()) == "live"]

    def _of_name(self, org_slug: str, name: str) -> Sequence[KeyInfo]:
        return [key for key in self._live(org_slug) if key.name == name]

    def _tell(self, key: KeyInfo, who: str, action: str) -> None:
        details = {"name": key.name, "scope": str(key.scope)}
        self._audit.record(key.org_slug, who=who, action=action, target=key.key_id, details=details)


def _bearer(authorization: str | None) -> str:
    kind, _, token = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("Send an API key: `Authorization: Bearer <key>`. To make one: main.py keys create.")
    return token.strip()


def _refused() -> UnauthorizedError:
    return UnauthorizedError("The API key is not valid. See the organisation's keys: main.py keys list.")


def _ending(body: dict[str, Any], until: datetime) -> dict[str, Any]:
    """Return the body with this expiry, unless it expires earlier."""
    before = _time(body["expires_at"])
    return {**body, "expires_at": _text(until if before is None else min(before, until))}


def _info(org_slug: str, record: Record, last_used_at: datetime | None) -> KeyInfo:
    body = record.body
    created_at = _time(body["created_at"])
    assert created_at is not None
    return KeyInfo(
        org_slug=org_slug,
        key_id=record.name,
        name=body["name"],
        scope=Scope(body["scope"]),
        created_at=created_at,
        created_by=body["created_by"],
        expires_at=_time(body["expires_at"]),
        revoked_at=_time(body["revoked_at"]),
        last_used_at=last_used_at,
    )


def _age(key: KeyInfo) -> tuple[datetime, str]:
    return key.created_at, key.key_id


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
