"""Connection strings: what is refused and what is added; and that no part of them is ever shown."""

import traceback
from dataclasses import replace
from typing import Any

import pytest

from common.adapters.sql.postgres.dsn import connect_args
from common.platform.errors import ConfigError
from common.platform.settings import Settings

REMOTE = "postgresql://reader.ref:canary@pooler.example.com:6543/postgres"


def args(dsn: str) -> dict[str, Any]:
    return connect_args(dsn, "THE_DSN")


def test_what_goes_over_a_network_is_encrypted_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert args(REMOTE)["sslmode"] == "require"
    assert args(REMOTE + "?sslmode=verify-full")["sslmode"] == "verify-full"


def test_a_root_certificate_is_there_to_be_verified() -> None:
    assert args(REMOTE + "?sslrootcert=supabase.crt")["sslmode"] == "verify-full"


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_mode_that_may_not_encrypt_is_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match=r"THE_DSN: sslmode must be one of require, verify-ca, verify-full"):
        args(f"{REMOTE}?sslmode={mode}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "%2Fvar%2Frun"])
def test_on_this_machine_nothing_is_added(host: str) -> None:
    assert "sslmode" not in args(f"postgresql://u:p@{host}/db")


@pytest.mark.parametrize("host", ["127.evil.example", "localhost.example", "localhost,far.example", "127.1,10.0.0.1"])
def test_a_host_that_only_looks_local_is_not(host: str) -> None:
    assert args(f"postgresql://u:p@{host}/db")["sslmode"] == "require"
    assert args("host=127.0.0.1 hostaddr=10.0.0.1 password=p")["sslmode"] == "require"


def test_nothing_is_prepared_and_every_statement_stands_alone() -> None:
    found = args(REMOTE)
    assert found["prepare_threshold"] is None and found["autocommit"] is True
    assert found["application_name"] == "pipeline-ops" and found["connect_timeout"] == 5
    assert args(REMOTE + "?connect_timeout=2")["connect_timeout"] == "2"


@pytest.mark.parametrize(
    "dsn",
    [
        "canary",
        "postgresql://u:canary@[::1/db",
        "postgresql://u:canary%zz@h/db",
        "postgresql:///db?password=canary",
        "password=canary",
        "postgresql://u:can@ary@pooler.example.com/db",
        "postgresql://u:can@ary/x@pooler.example.com/db",
        "postgresql://u:can/ary@pooler.example.com/db",
        REMOTE + "?sslmode=disable",
    ],
)
def test_a_string_that_can_not_be_right_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigError) as refused:
        args(dsn)
    told = "".join(traceback.format_exception(refused.value, limit=0))
    assert "THE_DSN" in told and "canary" not in told and "can@" not in told and "ary" not in told


def test_settings_never_show_a_connection_string() -> None:
    environ = {"PIPELINE_OPS_SUPABASE_DSN": REMOTE, "PIPELINE_OPS_POSTGRES_DSN": REMOTE + "?x=1"}
    settings = Settings.from_env(environ)
    assert (settings.supabase_dsn, settings.postgres_dsn) == (REMOTE, REMOTE + "?x=1")
    for shown in (repr(settings), str(settings), repr([settings]), repr(replace(settings, store="google"))):
        assert "canary" not in shown and "pooler" not in shown


def test_runs_in_postgres_need_a_connection_string() -> None:
    with pytest.raises(ConfigError, match="PIPELINE_OPS_POSTGRES_DSN"):
        Settings.from_env({"PIPELINE_OPS_STORE": "postgres"})
