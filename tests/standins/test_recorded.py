"""What the SDKs of Anthropic, Azure and OCI accepted when `make specs` ran them: the sandboxes still answer so.

A recording holds the requests as the SDK sent them, and the shape of each answer. If one of these fails and the change
is meant, run `make specs`: the SDKs have to accept the new answers.
"""

import base64
import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from common.config.providers import filled, load_providers, provider_url
from common.platform.paths import CONFIGS
from common.processors.clouds.oci.signature import OciKey, signer, to_sign
from infra.local.sandbox.anthropic import ADMIN_KEY
from infra.local.sandbox.azure import TOKENS
from infra.local.sandbox.exchange import Request
from infra.local.sandbox.server import SandboxServer
from tests.specs.renew import AWKWARD, SEED
from tests.specs.shapes import shape

SPECS = Path(__file__).resolve().parent.parent / "specs"
RECORDED = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((SPECS / "recorded").glob("*.json"))}
EXCHANGES = [(name, exchange) for name, recorded in RECORDED.items() for exchange in recorded["exchanges"]]
SANDBOX = SandboxServer(SEED, rate_limit_every=0)
OCI = RECORDED["oci"]


def _authorised(name: str, asked: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a request with a credential of the sandbox's."""
    headers, target, body = dict(asked["headers"]), asked["target"], (asked["body"] or "").encode()
    if name == "anthropic":
        return headers | {"authorization": f"Bearer {ADMIN_KEY}"}
    if name == "azure":
        api = "storage" if target.startswith("/azure-blob") else "management"
        return headers | {"authorization": f"Bearer {TOKENS[f'https://{api}.azure.com/.default']}", "host": "127.0.0.1"}
    stored = json.loads(SANDBOX.secrets["oci_usage"])
    key = OciKey(stored["tenancy"], stored["user"], stored["fingerprint"], stored["private_key"])
    sign = signer(key, lambda: datetime.now(UTC))
    lengths = {"content-length": str(len(body))} if asked["method"] == "POST" else {}
    return headers | lengths | {"host": "127.0.0.1", **sign(asked["method"], f"http://127.0.0.1{target}", body)}


@pytest.mark.parametrize(("name", "exchange"), EXCHANGES, ids=[f"{name} {n}" for n, (name, _) in enumerate(EXCHANGES)])
def test_the_sandbox_answers_as_the_sdk_accepted_it(name: str, exchange: dict[str, Any]) -> None:
    asked = exchange["request"]
    path, _, query = asked["target"].partition("?")
    headers, body = _authorised(name, asked), (asked["body"] or "").encode()
    pairs = parse_qsl(query, keep_blank_values=True)
    request = Request(path, pairs, headers, asked["method"], body=body, target=asked["target"])
    answer = SANDBOX.respond(request)
    assert answer.status == exchange["answer"]["status"], answer.body
    assert sorted(answer.headers) == exchange["answer"]["headers"]
    # A page without some optional values has fewer paths, never others.
    found, accepted = set(shape(answer)), set(exchange["answer"]["shape"])
    assert found <= accepted, f"the SDK has not seen {sorted(found - accepted)}: run make specs"
    assert {path for path in accepted - found if not path.startswith((".data[]", ".items[]", ".next"))} == set()


def test_every_recording_says_what_it_is_from() -> None:
    assert set(RECORDED) == {"anthropic", "azure", "oci"}
    for recorded in RECORDED.values():
        assert datetime.strptime(recorded["recorded_on"], "%Y-%m-%d").replace(tzinfo=UTC) and recorded["licence"]
        assert all(re.fullmatch(r"[a-z-]+ [0-9.]+", package) for package in recorded["packages"])
        assert len(recorded["exchanges"]) >= 3
    assert all("Bearer" not in json.dumps(recorded["exchanges"]) for recorded in RECORDED.values())


LISTS = {
    "anthropic": {
        "analytics reports": {
            "data": "read",
            "next_page": "followed",
            "has_more": "followed",
            "data_refreshed_at": "refused if it is before the end of a day that is over: partial",
        }
    },
    "azure": {
        "List Blobs": {
            **dict.fromkeys(("ServiceEndpoint", "ContainerName", "Prefix", "Marker", "MaxResults"), "the question"),
            "Segment": "read",
            "NextMarker": "followed",
        },
        "query": {"columns": "read", "rows": "read", "next_link": "followed"},
    },
    "oci": {
        "usage": {"groupBy": "the question", "items": "read; opc-next-page is a header"},
        "objects": {"objects": "read", "prefixes": "no delimiter is sent", "nextStartWith": "followed"},
    },
}


def test_every_field_of_a_list_answer_is_read_refused_or_has_a_reason() -> None:
    """A partial-result field that an API adds shows here when the recordings are renewed."""
    fields = {name: {api: set(its) for api, its in of["lists"].items()} for name, of in RECORDED.items()}
    assert fields == {name: {api: set(its) for api, its in of.items()} for name, of in LISTS.items()}


@pytest.mark.parametrize("signed", OCI["signatures"]["requests"], ids=lambda signed: signed["url"][-30:])
def test_ocis_signature_is_of_the_text_that_ours_is_of(signed: dict[str, str]) -> None:
    """The key that made it is gone; its public half tells that the text is the same to the last byte."""
    public = load_pem_public_key(OCI["signatures"]["public_key"].encode())
    assert isinstance(public, RSAPublicKey)
    text, _ = to_sign(signed["method"], signed["url"], signed["body"].encode(), parsedate_to_datetime(signed["date"]))
    match = re.search(r'headers="([^"]+)".*signature="([^"]+)"', signed["authorization"])
    assert match is not None
    assert match[1] == " ".join(line.partition(": ")[0] for line in text.split("\n"))
    public.verify(base64.b64decode(match[2]), text.encode(), PKCS1v15(), hashes.SHA256())


def test_every_awkward_request_was_signed() -> None:
    assert len(OCI["signatures"]["requests"]) == len(AWKWARD) >= 7


@pytest.mark.parametrize(("region", "its"), OCI["realms"].items(), ids=list(OCI["realms"]))
def test_every_region_of_oci_is_reached_where_its_sdk_reaches_it(region: str, its: list[str]) -> None:
    realm, host = its
    key = OciKey(f"ocid1.tenancy.{realm}..aaaa", "ocid1.user.oc1..aaaa", "", "")
    registry = load_providers(CONFIGS)
    assert filled(provider_url(registry, key.address("objectstorage")), region=region) == host
    usage = filled(provider_url(registry, key.address("usage")), region=region)
    assert usage == host.replace("objectstorage.", "usageapi.").replace(f"{region}.", f"{region}.oci.")
