"""``GcpApiExtractor`` with Google's own token client, against a sandbox that verifies its assertions."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any

import pytest
from pydantic import ValidationError

from common.adapters.google.cloud import GoogleCloudAdapter
from common.config.loader import ConfigTree
from common.platform.errors import PermanentError, TransientError
from common.platform.paths import CONFIGS
from common.processors.clouds.gcp.api import PARTIAL, GcpApiExtractor, GcpApiParams
from common.processors.registry import REGISTRY
from infra.local.sandbox.exchange import Answer
from infra.local.sandbox.gcp import SERVICES
from infra.local.sandbox.server import SandboxServer
from infra.local.sandbox.service_accounts import BILLS
from tests.processors.context import NOW, RecordingContext, make_context


@contextmanager
def sandbox(fail_with: Any = (), secret: str | None = None, **context: Any) -> Iterator[tuple[SandboxServer, Any]]:
    with SandboxServer(0, fail_with=fail_with, rate_limit_every=0) as server:
        cloud = GoogleCloudAdapter("test-project", lambda: server.urls["gcp_token"])
        text = BILLS.key_file() if secret is None else secret
        given = {"secret": lambda: text, "google": lambda: cloud} | context
        yield server, make_context(provider_url=lambda name: server.urls[name.replace(".", "_")], **given)


def params(**more: Any) -> GcpApiParams:
    """The shipped pipeline's, changed."""
    (step,) = ConfigTree(CONFIGS, REGISTRY).load("gcp/catalog/services").config.steps
    return GcpApiParams.model_validate({**step.config, **more})


def extract(context: RecordingContext, its: GcpApiParams) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for batch in GcpApiExtractor().run(context, its):
        assert not batch.bad, [str(bad) for bad in batch.bad]
        rows += [dict(row) for row in batch.rows]
    return rows


def answering(*bodies: Any) -> Any:
    left = list(bodies)
    return lambda request: Answer(200, left.pop(0)) if "/v1/" in request.path and left else None


def test_all_pages_are_read_with_a_token_for_the_key() -> None:
    with sandbox() as (server, context):
        rows = extract(context, params())
        asked = [request.path for request in server.requests]
    assert [(row["service_id"], row["display_name"]) for row in rows] == SERVICES
    assert {row["x_pipeline_run_date"] for row in rows} == {context.end_date}
    assert asked == ["/gcp-token", *["/gcp-cloudbilling/v1/services"] * 3], "one token does for all pages"


@pytest.mark.parametrize("field", PARTIAL)
def test_a_partial_list_is_not_taken_as_whole(field: str) -> None:
    body = {"services": [{"serviceId": "1", "displayName": "A"}], field: ["us-west1"]}
    with sandbox(answering(body)) as (_, context), pytest.raises(TransientError, match=f"partial: {field} is filled"):
        extract(context, params())


def test_the_address_for_tokens_that_a_key_names_is_not_asked() -> None:
    """Whoever uploads a key must not choose where our requests go: the sandbox's key names one where nobody is."""
    assert json.loads(BILLS.key_file())["token_uri"] == "http://127.0.0.1:1/not-here"
    with sandbox() as (_, context):
        assert len(extract(context, params())) == len(SERVICES)


def test_a_key_that_google_does_not_know_is_refused_and_not_shown() -> None:
    other = json.dumps(json.loads(BILLS.key_file()) | {"client_email": "x@other.iam.gserviceaccount.com"})
    with sandbox(secret=other) as (_, context), pytest.raises(PermanentError, match="invalid_grant") as caught:
        extract(context, params())
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_key_that_is_cut_off_is_refused_and_not_shown() -> None:
    cut = json.dumps(json.loads(BILLS.key_file()) | {"private_key": "-----BEGIN PRIVATE KEY-----\nMIIE"})
    with (
        sandbox(secret=cut) as (_, context),
        pytest.raises(PermanentError, match="paste its JSON file whole") as caught,
    ):
        extract(context, params())
    assert "MIIE" not in str(caught.value)


def test_an_unknown_parameter_is_told_in_googles_words() -> None:
    with sandbox() as (_, context), pytest.raises(PermanentError, match='Unknown name "pagesize"'):
        extract(context, params(parameters={"pagesize": "1"}))


def test_a_limit_that_comes_as_a_403_is_waited_for() -> None:
    error = {"error": {"code": 403, "message": "slow", "errors": [{"reason": "userRateLimitExceeded"}]}}
    once = [None, Answer(403, error)]
    with sandbox(once) as (_, context):
        assert len(extract(context, params())) == len(SERVICES)
    assert context.time.slept == [0.5]


def test_values_take_the_types_of_their_columns_and_money_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google writes whole numbers as text, and money as whole units and nanos: 12 and 345,000,001 of them."""
    item = {
        "day": "2026-11-18T23:30:00-02:00",
        "price": {"currencyCode": "EUR", "units": "12", "nanos": 345_000_001},
        "labels": {"a": ["b"]},
        "count": "7",
        "none": None,
    }
    columns = {
        "billing_account_id": "count",
        "cost": "price",
        "currency": "price.currencyCode",
        "labels": "labels",
        "usage_start_time": "day",
        "zone": "none",
    }
    its = params(destination_table="gcp_billing_export", columns=columns, items="a.b", parameters={}, day_column="day")
    days = {"start_date": date(2026, 11, 19), "end_date": date(2026, 11, 19)}
    other = item | {"day": "2026-11-18T00:00:00Z"}
    with sandbox(answering({"a": {"b": [item, other]}}), **days) as (_, context):
        (row,) = extract(context, its)
    assert (row["cost"], row["currency"], row["billing_account_id"]) == (Decimal("12.345000001"), "EUR", "7")
    assert (json.loads(row["labels"]), row["zone"]) == ({"a": ["b"]}, None)
    assert row["x_pipeline_run_date"] == date(2026, 11, 19)
    assert context.infos[-1] == "1 items are of days outside the run's, and left out."


def test_an_item_that_can_not_be_read_is_a_bad_row_with_its_place() -> None:
    its = params(destination_table="gcp_billing_export", columns={"cost": "price"}, items="x", day_column="day")
    items = [{"day": "soon"}, {"day": "2026-11-18", "price": "a lot"}, "no object", {"day": "2026-11-18", "price": {}}]
    with sandbox(answering({"x": items})) as (_, context):
        (batch,) = GcpApiExtractor().run(context, its)
    assert [str(bad) for bad in batch.bad] == [
        "/v1/services: item 1, column day: 'soon' is not a time such as 2026-10-01T00:00:00Z.",
        "/v1/services: item 2, column price: 'a lot' is not a number.",
        "/v1/services: item 3, column day: 'NULL' is not a time such as 2026-10-01T00:00:00Z.",
        "/v1/services: item 4, column price: '{}' is not a number.",
    ]


@pytest.mark.parametrize(
    ("bodies", "said"),
    [
        ([{"services": "many"}], "services is no list"),
        ([{"services": [], "nextPageToken": "a"}] * 3, "nextPageToken leads round in a circle"),
        ([{"services": [], "nextPageToken": {"a": 1}}], "nextPageToken is no text"),
    ],
)
def test_an_answer_of_another_shape_is_read_anew(bodies: list[Any], said: str) -> None:
    with sandbox(answering(*bodies)) as (_, context), pytest.raises(TransientError, match=said):
        extract(context, params())


def test_a_list_that_google_leaves_out_is_empty() -> None:
    with sandbox(answering({})) as (_, context):
        assert extract(context, params()) == []


@pytest.mark.parametrize(
    "path", ["https://evil.example/", "//evil.example/x", "/v1/../admin", "/v1?x=1", "/v1#x", "v1"]
)
def test_a_path_does_not_lead_to_another_host(path: str) -> None:
    with pytest.raises(ValidationError, match="must be /parts/of/a/path"):
        params(path=path)


def test_an_api_that_the_registry_does_not_have_can_not_be_asked() -> None:
    def url(name: str) -> str:
        raise PermanentError(f"no url {name}")

    with sandbox() as (server, _):
        cloud = GoogleCloudAdapter("test-project", lambda: server.urls["gcp_token"])
        context = make_context(provider_url=url, google=lambda: cloud, secret=BILLS.key_file)
        with pytest.raises(PermanentError, match=r"no url gcp\.storage"):
            extract(context, params(api="storage"))


# Tokens


def tokens(server: SandboxServer) -> list[str]:
    return [request.path for request in server.requests if request.path == "/gcp-token"]


def test_an_answer_with_a_redirect_is_not_followed() -> None:
    """It would carry the signed assertion to a host that is not in the registry."""
    with sandbox() as (elsewhere, _):
        away = Answer(307, b"", {"location": f"{elsewhere.urls['gcp_token']}/stolen"})
        with (
            sandbox([away]) as (_, context),
            pytest.raises(PermanentError, match="does not accept the service account"),
        ):
            extract(context, params())
        assert list(elsewhere.requests) == []


def test_an_outage_of_the_token_endpoint_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # google-auth waits between its three tries
    with sandbox([Answer(503, {"error": "temporarily_unavailable"})] * 3) as (server, context):
        with pytest.raises(TransientError, match="temporarily_unavailable"):
            extract(context, params())
        assert len(tokens(server)) == 3


def test_a_token_is_waited_for_no_longer_than_the_attempt_has_left() -> None:
    with sandbox([Answer(200, b"", delay_s=30)], deadline=NOW + timedelta(seconds=0.3)) as (_, context):
        began = monotonic()
        with pytest.raises(TransientError, match="does not answer"):
            extract(context, params())
        assert monotonic() - began < 10


def test_a_host_that_a_key_names_is_not_used() -> None:
    """A key of another universe would have Google's client sign its own token for hosts there."""
    key = json.dumps(json.loads(BILLS.key_file()) | {"universe_domain": "evil.example"})
    with sandbox(secret=key) as (_, context):
        assert len(extract(context, params())) == len(SERVICES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"private_key_id": "old"}, "account not found"),
        ({"client_email": "cost-reader@acme-gemini-sandbox.iam.gserviceaccount.com"}, "account not found"),
    ],
)
def test_the_sandbox_gives_tokens_to_its_own_accounts_alone(change: dict[str, str], said: str) -> None:
    key = json.dumps(json.loads(BILLS.key_file()) | change)
    with sandbox(secret=key) as (_, context), pytest.raises(PermanentError, match=said):
        extract(context, params())


def test_the_sandbox_gives_no_token_for_a_scope_that_an_account_does_not_have() -> None:
    scopes = ["https://www.googleapis.com/auth/monitoring.read"]
    with sandbox() as (_, context), pytest.raises(PermanentError, match="invalid_scope"):
        extract(context, params(scopes=scopes))
