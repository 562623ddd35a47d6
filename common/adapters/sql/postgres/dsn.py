"""Reads a connection string strictly: a person wrote it, it holds a password, and it decides about encryption."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from common.platform.errors import ConfigError

FORM = "postgresql://USER:PASSWORD@HOST:6543/DATABASE"
ENCRYPTED = ("require", "verify-ca", "verify-full")
CONNECT_TIMEOUT_S = 5
SILENCE_MS = 10_000
"""A connection is closed if the peer acknowledges nothing for this long; TCP's own limit is many minutes."""


def connect_args(dsn: str, setting: str) -> dict[str, Any]:
    """Return the driver's arguments for a connection string, as a pooler in transaction mode needs them.

    Network traffic is encrypted: ``require`` at least, ``verify-full`` if the string names a root certificate. Raises
    ConfigError, which names ``setting`` and shows nothing of the string: any part of it may be part of the password.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given: dict[str, Any] = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise ConfigError(f"{setting}: is not a connection string. It looks like {FORM}.") from None
    hosts = [str(given[name]) for name in ("host", "hostaddr") if given.get(name)]
    if not hosts:
        raise ConfigError(f"{setting}: names no host. It looks like {FORM}.")
    # An unescaped "@" ends the password early: the rest of it becomes the host or database, which error messages show.
    if any("@" in part for part in (*hosts, str(given.get("dbname", "")))):
        raise ConfigError(f"{setting}: a character ends the password. Write @ as %40, / as %2F, : as %3A, % as %25.")
    return {
        "application_name": "pipeline-ops",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": SILENCE_MS,
        **given,
        **_encryption(given, hosts, setting),
        "autocommit": True,
        # The next transaction may run on another of the pooler's connections, where the statement is not prepared.
        "prepare_threshold": None,
    }


def _encryption(given: Mapping[str, Any], hosts: list[str], setting: str) -> dict[str, str]:
    """Return the arguments for encryption. Always explicit: otherwise the driver would obey PGSSLMODE."""
    if all(_is_here(one) for host in hosts for one in host.split(",")):
        return {}
    mode = given.get("sslmode") or ("verify-full" if given.get("sslrootcert") else "require")
    if mode not in ENCRYPTED:
        raise ConfigError(f"{setting}: sslmode must be one of {', '.join(ENCRYPTED)} for a server on another machine.")
    return {"sslmode": mode}


def _is_here(host: str) -> bool:
    """Return whether the host is this machine, so that nothing is sent over a network."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
