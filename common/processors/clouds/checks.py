"""What ``validate --online`` asks of a cloud: the check of each processor that the credential has the fields for."""

from collections.abc import Mapping
from importlib import import_module

from common.ports.http import Calls
from common.processors.clouds.gcp.credential import google_credential
from common.processors.clouds.gcp.google_token import ServiceAccount, access_token
from common.processors.genai.sources import Check
from common.processors.http.stored_settings import StoredSettings

CHECKS: Mapping[str, Mapping[str, str]] = {
    "aws": {
        "bucket": "common.processors.clouds.aws.export:check",
        "account": "common.processors.clouds.aws.cost_explorer:check",
    },
    "azure": {
        "container": "common.processors.clouds.azure.export:check",
        "scope": "common.processors.clouds.azure.query:check",
    },
    "oci": {"tenancy": "common.processors.clouds.oci.report:check"},
    "gcp": {"": "common.processors.clouds.checks:check_google"},
}
"""By provider: the field that a processor's part of the credential can't be without, and its check."""

NEEDS = "Paste a JSON object with the fields that docs/providers-cloud.md names."
GOOGLE_SCOPE = "https://www.googleapis.com/auth/bigquery.readonly"


def cloud_check(provider: str) -> Check | None:
    """Return what checks a credential of this cloud; None if it is none."""
    known = CHECKS.get(provider)
    if known is None:
        return None

    def check(calls: Calls, secret: str) -> str:
        stored = StoredSettings(calls.credential_id, secret, NEEDS)
        fitting = [path for name, path in known.items() if not name or name in stored.values]
        if not fitting:
            stored.wrong(f"has none of {', '.join(known)}")
        return "; ".join(_loaded(path)(calls, secret) for path in fitting)

    return check


def check_google(calls: Calls, secret: str) -> str:
    """Ask for a token for a service account's key; our own identity is not the organisation's to check."""
    credential = google_credential(calls.credential_id, secret)
    if credential.key is None:
        return "the function's own identity: nothing is asked"
    account = ServiceAccount.of(credential.key, calls.credential_id)
    access_token(calls, account, GOOGLE_SCOPE)
    return f"service account {account.email}"


def _loaded(path: str) -> Check:
    module, _, name = path.partition(":")
    found: Check = getattr(import_module(module), name)
    return found
