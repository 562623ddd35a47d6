"""Secrets that are open are taken out of what is said, however it is written."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.platform.redaction import hide, hiding, scrubbed, scrubbed_data

SECRET = 'sk-CANARY /+"x"\\ä\n=='
WAYS = {
    "as it is": lambda s: s,
    "in a URL": lambda s: quote(s, safe=""),
    "in a query": quote_plus,
    "in base64": lambda s: base64.b64encode(s.encode()).decode(),
    "in JSON": json.dumps,
    "in JSON as it is": lambda s: json.dumps(s, ensure_ascii=False),
    "in JSON in JSON": lambda s: json.dumps(json.dumps(s, ensure_ascii=False), ensure_ascii=False),
    "in Python": repr,
    "in Python in Python": lambda s: repr(repr(s)),
    "in bytes": lambda s: repr(s.replace("ä", "a").encode()),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_secret_is_found_as_it_is_written(way: str) -> None:
    secret = SECRET.replace("ä", "a") if way == "in bytes" else SECRET
    with hiding():
        hide(secret)
        text = scrubbed(f"before {WAYS[way](secret)} after")
    assert "CANARY" not in text and text.startswith("before ") and text.endswith(" after") and "[secret]" in text


def test_it_is_hidden_in_its_block_alone() -> None:
    with hiding():
        hide("canary-1")
        with hiding():
            assert scrubbed("canary-1") == "canary-1"
            hide("canary-2")
            assert scrubbed("canary-2") == "[secret]"
        assert scrubbed("canary-1 canary-2") == "[secret] canary-2"
    assert scrubbed("canary-1") == "canary-1"


def test_several_are_hidden_and_one_within_another_too() -> None:
    with hiding():
        hide("canary")
        hide("canary-long")
        hide("other.*")
        assert scrubbed("canary-long canary other.* otherx") == "[secret] [secret] [secret] otherx"


@pytest.mark.parametrize("short", ["", "a", "abc"])
def test_what_is_too_short_to_be_a_secret_takes_no_words_away(short: str) -> None:
    with hiding():
        hide(short)
        assert scrubbed("abc a b c") == "abc a b c"


def test_the_secret_fields_of_a_json_credential_are_hidden_one_by_one() -> None:
    key = "-----BEGIN\nCANARY\n-----END"
    secret = json.dumps({"type": "service_account", "private_key": key, "client_email": "a@b"})
    with hiding():
        hide(secret)
        assert "CANARY" not in scrubbed(f"got {key}") + scrubbed(secret) + scrubbed(repr(key))
        assert scrubbed("service_account a@b") == "service_account a@b"


def test_a_secret_of_nothing_but_backslashes_takes_no_words_away() -> None:
    with hiding():
        hide("\\" * 8)
        assert scrubbed("a b") == "a b" and scrubbed("x" + "\\" * 8) == "x[secret]"


def test_data_stays_data() -> None:
    with hiding():
        hide('canary"\\')
        found = scrubbed_data({'a canary"\\': ['canary"\\', 1, None, {"b": 'x canary"\\'}]})
    assert found == {"a [secret]\\": ["[secret]\\", 1, None, {"b": "x [secret]\\"}]}


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_survives_as_it_is_or_in_json(secret: str, before: str, after: str) -> None:
    with hiding():
        hide(secret)
        for text in (f"{before}{secret}{after}", json.dumps({"x": f"{before}{secret}{after}"}, ensure_ascii=False)):
            assert secret not in scrubbed(text) or secret in "[secret]"
