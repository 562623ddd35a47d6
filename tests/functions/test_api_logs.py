"""A run's log over HTTP: filtered, followed, downloaded."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.core.deserialization import _parse_sse_events
from werkzeug.test import TestResponse

from common.adapters.sql import run_logs
from common.ports.logs import LogLine
from functions.api import logs
from tests.harness import ORG, Harness, step

ABSENT = "run_" + "0" * 32


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOOK_EVERY_S", 0.0)


@pytest.fixture
def run_id(harness: Harness) -> str:
    """An ended run of two steps, with a line of each severity."""

    def talk(context: Any, _params: Any) -> None:
        harness.clock.tick(1)
        context.warn("model x has no price")

    harness.script("talk", talk)
    harness.pipeline(step("first", script="talk"), step("second", "first"))
    run_id = harness.start()
    harness.drain()
    for number, severity in enumerate(("DEBUG", "ERROR", "CRITICAL")):
        line = LogLine(harness.clock.now, severity, f"line {number}\nof two lines: Käse", "second", 1)
        harness.engine.logs.append(run_id, line)
    return run_id


def lines(harness: Harness, run_id: str, query: str = "") -> list[dict[str, Any]]:
    answer = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}{query}")
    assert answer.json is not None, answer.text
    found: list[dict[str, Any]] = answer.json["lines"]
    return found


def test_a_severity_shows_itself_and_what_is_worse(harness: Harness, run_id: str) -> None:
    assert {line["severity"] for line in lines(harness, run_id)} == {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    assert [line["severity"] for line in lines(harness, run_id, "?severity=WARNING")] == [
        "WARNING",
        "ERROR",
        "CRITICAL",
    ]
    assert [line["severity"] for line in lines(harness, run_id, "?severity=ERROR&step=second")] == ["ERROR", "CRITICAL"]
    assert lines(harness, run_id, "?severity=ERROR&step=first") == []


def test_a_long_log_is_cut_off_and_says_so(harness: Harness, run_id: str) -> None:
    answer = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}?limit=2").json
    assert answer is not None and len(answer["lines"]) == 2 and answer["truncated"]


def test_each_step_has_its_own_first_lines(harness: Harness, run_id: str) -> None:
    answer = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}/steps?limit=3").json
    assert answer is not None
    for one in answer["steps"]:
        own = lines(harness, run_id, f"?step={one['step_id']}")
        assert one["lines"] == own[:3] and one["truncated"] == (len(own) > 3) and own


def test_a_download_is_the_whole_log_in_the_form_that_is_asked_for(harness: Harness, run_id: str) -> None:
    path, whole = f"/pipelines/logs/{ORG}/{run_id}/download", lines(harness, run_id)
    plain = harness.http("GET", path)
    assert plain.mimetype == "application/x-ndjson"
    assert [json.loads(line) for line in plain.text.splitlines()] == whole
    text = harness.http("GET", f"{path}?format=text&severity=ERROR")
    assert text.mimetype == "text/plain" and text.text.count("Käse") == 2
    assert all(line.startswith(("2026-11-21T", "    ")) for line in text.text.splitlines())
    only = harness.http("GET", f"{path}?step=first")
    assert [json.loads(line) for line in only.text.splitlines()] == [w for w in whole if w["step_id"] == "first"]


def test_a_download_is_compressed_on_the_way_or_as_a_file(harness: Harness, run_id: str) -> None:
    path = f"/pipelines/logs/{ORG}/{run_id}/download"
    plain = harness.http("GET", path).data
    on_the_way = harness.http("GET", path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert on_the_way.headers["Content-Encoding"] == "gzip" and on_the_way.mimetype == "application/x-ndjson"
    assert "Accept-Encoding" in on_the_way.headers["Vary"]
    as_file = harness.http("GET", f"{path}?gzip=1", headers={"Accept-Encoding": "gzip"})
    assert as_file.mimetype == "application/gzip" and "Content-Encoding" not in as_file.headers
    assert as_file.headers["Content-Disposition"] == f'attachment; filename="{run_id}.ndjson.gz"'
    assert gzip.decompress(on_the_way.data) == gzip.decompress(as_file.data) == plain
    refused = harness.http("GET", path, headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "Content-Encoding" not in refused.headers and refused.data == plain


class Counting:
    """A log of many lines that counts how far it was read."""

    settles_s = 0.0

    def __init__(self, count: int) -> None:
        self.count, self.told = count, 0

    def append(self, run_id: str, line: LogLine) -> None:
        raise NotImplementedError

    def read(self, _run_id: str, **_: Any) -> Iterator[LogLine]:
        from tests.contract.test_run_logs import T0

        for number in range(self.count):
            self.told = number + 1
            yield LogLine(T0, "INFO", f"line {number}", place=str(number))


@pytest.mark.parametrize("query", ["", "?format=text", "?gzip=1"])
def test_the_first_bytes_of_a_download_come_long_before_its_last_line_is_read(
    harness: Harness, run_id: str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    source = Counting(200_000)
    monkeypatch.setattr(type(harness.engine.logs), "read", lambda _self, *args, **more: source.read(*args, **more))
    answer = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}/download{query}", buffered=False)
    pieces = answer.iter_encoded()
    first = next(pieces)
    # A compressor keeps some of what it was given before it gives any back.
    assert first and source.told < source.count / 10
    answer.close()
    assert source.told < source.count / 10


def test_as_many_downloads_as_are_allowed_go_side_by_side(harness: Harness, run_id: str) -> None:
    path = f"/pipelines/logs/{ORG}/{run_id}/download"
    going = [harness.http("GET", path, buffered=False) for _ in range(8)]
    refused = harness.http("GET", path)
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0 and "downloads" in refused.text
    assert harness.http("GET", f"/pipelines/status/{ORG}/{run_id}").status_code == 200
    going.pop().close()
    assert harness.http("GET", path).status_code == 200
    assert harness.http("HEAD", path).status_code == 200
    for answer in going:
        answer.close()
    assert [harness.http("GET", path).status_code for _ in range(10)] == [200] * 10


class Follower:
    """Reads events one by one."""

    def __init__(self, harness: Harness, run_id: str, query: str = "", last: str = "") -> None:
        headers = {"Last-Event-ID": last} if last else {}
        path = f"/pipelines/logs/{ORG}/{run_id}?follow=1{query}"
        self.answer: TestResponse = harness.http("GET", path, headers=headers, buffered=False)
        assert self.answer.status_code == 200 and self.answer.mimetype == "text/event-stream", self.answer.text
        self._pieces = self.answer.iter_encoded()

    def next(self) -> dict[str, str]:
        """Return the next event's fields; none at the end."""
        event = next(self._pieces, b"").decode()
        return dict(line.split(": ", 1) for line in event.splitlines() if line)

    def rest(self) -> list[dict[str, str]]:
        """Return all events to come, and hang up."""
        events = list(iter(self.next, {}))
        self.answer.close()
        return events


def messages(events: list[dict[str, str]]) -> list[str]:
    return [json.loads(event["data"])["message"] for event in events if event.get("event") == "line"]


def test_a_follower_gets_lines_as_they_come_and_hears_of_the_end(harness: Harness) -> None:
    harness.pipeline(step("only"))
    run_id = harness.start()
    follower = Follower(harness, run_id)
    assert follower.next() == {"retry": "1000"}
    assert "pending" in follower.next()["data"]
    harness.drain()
    rest = follower.rest()
    assert rest[-1] == {"event": "end", "data": '{"status": "completed"}'}
    whole = [line["message"] for line in lines(harness, run_id)]
    assert messages(rest) == whole[1:] and len(whole) > 4


def test_each_event_is_as_the_document_says(harness: Harness, run_id: str) -> None:
    """Read as Schemathesis reads a stream, whose requests reach an ended run's followed log by chance only."""
    content = harness.http("GET", "/openapi.json").json["paths"]["/pipelines/logs/{org}/{run_id}"]["get"]
    schema = content["responses"]["200"]["content"]["text/event-stream"]["schema"]
    answer = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}?follow=1")
    events = _parse_sse_events(answer.data)
    assert {event.get("event") for event in events} == {"line", "end"}
    for event in events:
        Draft202012Validator(schema).validate(event)
        json.loads(event["data"])


def test_a_follower_goes_on_after_the_last_event_that_it_saw(harness: Harness, run_id: str) -> None:
    events = Follower(harness, run_id).rest()
    told = [event for event in events if event.get("event") == "line"]
    assert messages(told) == [line["message"] for line in lines(harness, run_id)]
    for number, event in enumerate(told):
        again = Follower(harness, run_id, last=event["id"]).rest()
        assert messages(again) == messages(told)[number + 1 :]
        assert again[-1]["event"] == "end"


def test_a_follower_may_filter(harness: Harness, run_id: str) -> None:
    for query in ("&severity=WARNING", "&step=second", "&severity=ERROR&step=first"):
        events = Follower(harness, run_id, query).rest()
        assert messages(events) == [line["message"] for line in lines(harness, run_id, "?" + query[1:])]


@pytest.mark.parametrize("last", ["x", "1", "-1.", "1.x/y", "99999999999999.", "1.999999999999999999999999"])
def test_a_place_that_was_not_given_out_is_refused(harness: Harness, run_id: str, last: str) -> None:
    answer = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}?follow=1", headers={"Last-Event-ID": last})
    assert answer.status_code == 422 and answer.content_type == "application/problem+json"


def test_a_follower_who_hears_nothing_hears_that_it_is_still_there(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "HEARTBEAT_S", 0.0)
    follower = Follower(harness, harness.start())
    follower.next()
    assert "pending" in follower.next()["data"]
    assert next(follower._pieces) == b": still here\n\n"
    follower.answer.close()


def test_a_follower_is_sent_away_when_its_time_is_over_and_not_told_of_an_end(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FOLLOW_S", 0.05)
    events = Follower(harness, harness.start()).rest()
    assert len(messages(events)) == 1 and all(event.get("event") != "end" for event in events)


def test_followers_never_take_all_of_a_processs_threads(harness: Harness, run_id: str) -> None:
    path = f"/pipelines/logs/{ORG}/{run_id}"
    going = [Follower(harness, run_id) for _ in range(8)]
    refused = harness.http("GET", f"{path}?follow=1")
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0 and "followers" in refused.text
    assert harness.http("GET", path).status_code == 200
    assert harness.http("GET", f"{path}/download").status_code == 200
    going.pop().rest()
    going.pop().answer.close()
    assert Follower(harness, run_id).rest()[-1]["event"] == "end"
    for follower in going:
        follower.answer.close()


def test_a_log_of_many_pages_is_whole(harness: Harness, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [line["message"] for line in lines(harness, run_id)]
    monkeypatch.setattr(run_logs, "PAGE", 1)
    assert [line["message"] for line in lines(harness, run_id)] == whole
    assert messages(Follower(harness, run_id).rest()) == whole


def test_a_download_that_breaks_is_broken_off_by_the_server(
    harness: Harness, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error reaches the server, which then ends the connection: a part of a log never looks like all of it."""

    def broken(*_: Any, **__: Any) -> Iterator[LogLine]:
        yield LogLine(harness.clock.now, "INFO", "one")
        raise RuntimeError("gone")

    monkeypatch.setattr(type(harness.engine.logs), "read", broken)
    with pytest.raises(RuntimeError, match="gone"):
        harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}/download?gzip=1")
