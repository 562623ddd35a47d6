"""Gets tokens of Microsoft Entra with a client secret (OAuth 2.0 client credentials, RFC 6749 section 4.4)."""

import json
from dataclasses import dataclass, field

from common.platform.errors import TransientError
from common.ports.http import Calls
from common.processors.http.client import Api, ErrorBody, ProviderClient, json_error
from common.processors.http.stored_settings import StoredSettings

UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

HELP = (
    'Paste {"tenant_id": …, "client_id": …, "client_secret": …} of an app registration, with "account", "container" '
    'and "folder" of an export\'s storage, or "scope" (/subscriptions/… or /providers/Microsoft.Billing/…) for '
    'queries; in a sovereign cloud with "cloud": "china" or "usgov".'
)

STORAGE = "https://storage.azure.com/.default"
MANAGEMENT = {
    "": "https://management.azure.com/.default",
    "china": "https://management.chinacloudapi.cn/.default",
    "usgov": "https://management.core.usgovcloudapi.net/.default",
}
"""Scopes of a token, which is for one resource; that of management by sovereign cloud (azure-mgmt-core 1.6.0)."""


def _oauth_error(body: bytes) -> ErrorBody:
    """Read ``{"error": "invalid_client", "error_description": …}``, or the error body of Azure's other APIs."""
    try:
        values = json.loads(body)
        return ErrorBody(str(values["error"]), str(values["error_description"]))
    except (ValueError, RecursionError, LookupError, TypeError):
        return json_error(body)


LOGIN = Api(key="azure", name="Microsoft Entra", credential_help=HELP, error=_oauth_error)


@dataclass(frozen=True, slots=True)
class Client:
    """An app registration. Its secret is left out of its repr."""

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)
    cloud: str = ""

    def address(self, api: str) -> str:
        """Return the registry's name of an API's address in this registration's cloud."""
        return f"azure.{api}" + (f"/{self.cloud}" if self.cloud else "")


def azure_client(stored: StoredSettings) -> Client:
    """Return the app registration of a credential."""
    return Client(
        stored.text("tenant_id", UUID),
        stored.text("client_id", UUID),
        stored.text("client_secret", r"[!-~]{1,200}"),
        stored.optional("cloud", "china|usgov") or "",
    )


def token(calls: Calls, client: Client, purpose: str) -> str:
    """Return an access token, valid for about an hour. Raises what ProviderClient raises."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "scope": purpose,
    }
    base = calls.provider_url(client.address("login"))
    with ProviderClient(calls, LOGIN, secret=client.client_secret, headers={}, base=base) as login:
        answer = login.post_form(f"/{client.tenant_id}/oauth2/v2.0/token", form)
    access_token = answer.body.get("access_token") if isinstance(answer.body, dict) else None
    if not isinstance(access_token, str) or not access_token:
        raise TransientError("Microsoft Entra responded without an access_token. The next attempt requests one again.")
    return access_token
