"""Where notifications may go, and what comes of the answers."""

import time

import pytest

from common.config.hosts import AllowedHosts, load_hosts
from common.notify.channels import sender
from common.notify.channels.base import Post
from common.notify.channels.sender import check_url, send
from common.platform.errors import ConfigError, PermanentError, TransientError
from tests.config_world import ConfigWorld
from tests.receiver import receiving

HOSTS = AllowedHosts(("hooks.slack.com", ".example.com"))
HERE = AllowedHosts(("127.0.0.1",))
POST = Post(b'{"a": 1}', {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hooks.slack.com/services/T0/B0/xyz", "hooks.slack.com"),
        ("https://HOOKS.slack.com:443/x?y=z", "hooks.slack.com"),
        ("https://a.b.example.com", "a.b.example.com"),
    ],
)
def test_an_allowed_host_over_https_is_accepted(url: str, host: str) -> None:
    assert check_url(url, HOSTS) == host


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/x",
        "https://hooks.slack.com:8443/x",
        "https://example.com/x",
        "https://evilexample.com/x",
        "https://hooks.slack.com.evil.net/x",
        "https://hooks.slack.com./x",
        "https://evil.net/hooks.slack.com",
        "https://evil.net#hooks.slack.com",
        "https://evil.net?x=.example.com",
        "https://hooks.slack.com@evil.net/x",
        "https://evil.net\\@hooks.slack.com/x",
        "https://user:pass@hooks.slack.com/x",
        "https://hooks.slack.com\n.evil.net/x",
        "https://hooks.slack.com/x y",
        "https://hooks.slack.com/\r\nHost: evil",
        "https://hooks.sl\u0430ck.com/x",
        "//hooks.slack.com/x",
        "ftp://hooks.slack.com/x",
        "file:///etc/passwd",
        "gopher://hooks.slack.com/x",
        "https://169.254.169.254/computeMetadata/v1/",
        "http://169.254.169.254/",
        "http://metadata.google.internal/",
        "https://metadata.google.internal/",
        "http://127.0.0.1/",
        "http://localhost/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://10.0.0.1/",
        "https://hooks.slack.com/" + "x" * 3_000,
        "",
        "https://",
    ],
)
def test_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(PermanentError, match="url: ") as caught:
        check_url(url, HOSTS)
    assert "pass" not in str(caught.value)


def test_this_machine_is_reached_only_where_the_operator_names_it() -> None:
    assert check_url("http://127.0.0.1:8123/x", HERE) == "127.0.0.1"
    for url in ("http://127.0.0.2/", "http://localhost/", "http://127.0.0.1.evil.net/"):
        with pytest.raises(PermanentError):
            check_url(url, HERE)


def test_an_answer_of_2xx_is_enough() -> None:
    with receiving(answer=lambda _: 204) as receiver:
        send(f"{receiver.url}/hook?a=b", POST, "run_1", HERE)
    (got,) = receiver.received
    assert (got.path, got.body, got.headers["idempotency-key"]) == ("/hook?a=b", POST.body, "run_1")
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_worth_another_try(status: int) -> None:
    with receiving(answer=lambda _: status) as receiver, pytest.raises(TransientError, match=str(status)):
        send(receiver.url + "/secret-path", POST, "k", HERE)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_a_refusal_is_final_and_told_without_the_address(status: int) -> None:
    with receiving(answer=lambda _: status) as receiver, pytest.raises(PermanentError, match=str(status)) as caught:
        send(receiver.url + "/secret-path", POST, "k", HERE)
    assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with (
        receiving() as inside,
        receiving(answer=lambda _: status, headers={"Location": f"{inside.url}/metadata"}) as receiver,
    ):
        with pytest.raises(PermanentError, match="not followed"):
            send(receiver.url, POST, "k", HERE)
        assert inside.received == []


def test_nobody_there_is_worth_another_try_and_told_without_the_address() -> None:
    with receiving() as receiver:
        gone = receiver.url
    with pytest.raises(TransientError, match=r"127\.0\.0\.1 could not be reached \(ConnectError\)") as caught:
        send(gone + "/secret-path", POST, "k", HERE)
    assert "secret-path" not in str(caught.value)


def test_an_answer_without_end_is_not_read() -> None:
    with receiving(drip=2_000) as receiver:
        began = time.monotonic()
        send(receiver.url, POST, "k", HERE)
        assert time.monotonic() - began < 10


def test_whoever_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_S", 0.2)

    def slow(_: object) -> int:
        time.sleep(1)
        return 200

    with receiving(answer=slow) as receiver, pytest.raises(TransientError, match="did not answer in time"):
        send(receiver.url, POST, "k", HERE)


def test_whoever_answers_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "TOTAL_S", 0.3)
    slowly = {f"X-{number}": "y" for number in range(3)}

    def drip(_: object) -> int:
        time.sleep(2)
        return 200

    with (
        receiving(answer=drip, headers=slowly) as receiver,
        pytest.raises(TransientError, match="within 0.3 s"),
    ):
        send(receiver.url, POST, "k", HERE)


def test_the_operators_file_is_strict(tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    world = ConfigWorld(tmp_path / "configs", monkeypatch)  # type: ignore[operator]
    assert load_hosts(world.root) == AllowedHosts()
    world.write("system/notifications.yml", "allowed_hosts: [hooks.slack.com, .example.com, '::1']\n")
    assert load_hosts(world.root).hosts == ("hooks.slack.com", ".example.com", "::1")
    for wrong in ("*.example.com", "https://x.y", ".com", "x/y", "A.com", ".", "a..b", "a b"):
        world.write("system/notifications.yml", f"allowed_hosts: ['{wrong}']\n")
        with pytest.raises(ConfigError, match="notifications.yml:1: allowed_hosts"):
            load_hosts(world.root)
