"""Provider credentials: they can be stored and deleted, but never read back."""

from datetime import datetime

from flask import Response, g
from pydantic import Field, SecretStr

from common.bootstrap import engine
from common.config.providers import load_providers
from common.platform.errors import InvalidFieldsError, nearest
from common.ports.secrets import CredentialInfo
from functions.api.inputs import Input, NoQuery, OrgPath
from functions.api.part import part
from functions.api.views import View

MAX_SECRET_CHARS = 16_000
"""A service account's key file has about 2,400 characters; a body may have 64 KiB."""
CREDENTIAL_ID = r"^[a-z][a-z0-9_-]{0,62}$"

routes = part("credentials", __doc__)


class CredentialBody(Input):
    """A credential to store. It replaces one of the same id."""

    provider: str = Field(max_length=63, description="Key of a provider, e.g. openai.")
    secret: SecretStr = Field(min_length=1, max_length=MAX_SECRET_CHARS, description="Encrypted at once.")
    credential_id: str | None = Field(None, pattern=CREDENTIAL_ID, description="Default: cred_<provider>.")


class CredentialPath(OrgPath):
    """One credential."""

    credential_id: str


class CredentialView(View):
    """A credential without its secret."""

    credential_id: str
    provider: str
    created_at: datetime


class CredentialsView(View):
    """An organisation's credentials, without their secrets."""

    credentials: list[CredentialView]


@routes.get("/pipelines/credentials/<org>", responses={200: CredentialsView})
def listed(path: OrgPath, query: NoQuery) -> Response:
    """List the organisation's credentials, without their secrets"""
    views = [_view(info) for info in engine().credentials.list(path.org)]
    return CredentialsView(credentials=views).response()


@routes.post("/pipelines/credentials/<org>", responses={201: CredentialView})
def add(path: OrgPath, query: NoQuery, body: CredentialBody) -> Response:
    """Store a credential, or replace it"""
    built = engine()
    providers = load_providers(built.settings.configs)
    if body.provider not in providers:
        problem = f"no such provider.{nearest(body.provider, providers)} Known: {', '.join(providers)}."
        raise InvalidFieldsError({"provider": problem})
    name = body.credential_id or f"cred_{body.provider}"
    info = CredentialInfo(path.org, name, body.provider, built.now())
    g.target, g.details = name, {"provider": body.provider}
    built.credentials.add(info, body.secret.get_secret_value())
    return _view(info).response(201)


@routes.delete("/pipelines/credentials/<org>/<credential_id>", responses={204: None})
def remove(path: CredentialPath, query: NoQuery) -> Response:
    """Delete a credential. Rows that were loaded with it keep its id"""
    engine().credentials.remove(path.org, path.credential_id)
    return Response(status=204)


def _view(info: CredentialInfo) -> CredentialView:
    return CredentialView(credential_id=info.credential_id, provider=info.provider, created_at=info.created_at)
