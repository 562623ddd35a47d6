"""API keys of an organisation. A key is shown once, when it is created."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import Field

from common.access.api_keys import KeyInfo, NewKey, Scope
from common.bootstrap import engine
from functions.api.access import caller
from functions.api.inputs import Input, NoQuery, OrgPath, json_integer
from functions.api.part import part
from functions.api.views import Time, View

MAX_DAYS = 3_650
MAX_GRACE_HOURS = 8_760
NAME = r"^[a-z][a-z0-9_-]{0,62}$"

routes = part("keys", __doc__)


class KeyBody(Input):
    """A key to create."""

    name: str = Field(pattern=NAME, description="What the key is for, e.g. app.")
    scope: Scope = Field(description="read: read runs. run: also start and change them. admin: also settings.")
    days: Annotated[int, Field(ge=1, le=MAX_DAYS), json_integer] | None = Field(
        None, description="Days until it expires; default: never."
    )


class RotateBody(Input):
    """How to rotate the keys of a name."""

    grace_hours: float | None = Field(
        None,
        strict=True,
        ge=0,
        le=MAX_GRACE_HOURS,
        description="Hours after which the previous key expires; default: it stays as it is.",
    )


class KeyPath(OrgPath):
    """One key."""

    key_id: str


class KeyNamePath(OrgPath):
    """All keys of one name."""

    name: str


class KeyView(View):
    """A key without its secret."""

    key_id: str
    name: str
    scope: Scope
    status: Literal["live", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: Time
    revoked_at: Time
    last_used_at: Time


class KeysView(View):
    """An organisation's keys, newest first, including revoked and expired ones."""

    keys: list[KeyView]


class NewKeyView(KeyView):
    """A key that was just created."""

    key: str = Field(description="The whole key. It is not stored and can't be shown again.")


@routes.get("/pipelines/keys/<org>", responses={200: KeysView})
def listed(path: OrgPath, query: NoQuery) -> Response:
    """List the organisation's keys, without their secrets"""
    return KeysView(keys=[KeyView(**_fields(key)) for key in engine().keys.list(path.org)]).response()


@routes.post("/pipelines/keys/<org>", responses={201: NewKeyView})
def create(path: OrgPath, query: NoQuery, body: KeyBody) -> Response:
    """Create the first key of a name

    The response has the key; it can't be read again.
    """
    lifetime = None if body.days is None else timedelta(days=body.days)
    return _new(engine().keys.create(path.org, body.name, body.scope, who=caller().who, lifetime=lifetime))


@routes.post("/pipelines/keys/<org>/<name>/rotate", responses={201: NewKeyView})
def rotate(path: KeyNamePath, query: NoQuery, body: RotateBody) -> Response:
    """Create a further key of a name

    The previous key stays valid, for `grace_hours` if given; older ones are revoked.
    """
    grace = None if body.grace_hours is None else timedelta(hours=body.grace_hours)
    return _new(engine().keys.rotate(path.org, path.name, who=caller().who, grace=grace))


@routes.delete("/pipelines/keys/<org>/<key_id>", responses={200: KeyView})
def revoke(path: KeyPath, query: NoQuery) -> Response:
    """Revoke a key: its next request is refused"""
    return KeyView(**_fields(engine().keys.revoke(path.org, path.key_id, who=caller().who))).response()


def _new(key: NewKey) -> Response:
    return NewKeyView(**_fields(key.info), key=key.token).response(201)


def _fields(key: KeyInfo) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scope": key.scope,
        "status": key.status(engine().now()),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
