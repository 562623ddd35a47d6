"""``main.py keys``: API keys of organisations."""

from datetime import datetime, timedelta
from typing import Any

import click

from common.access.api_keys import KeyInfo, NewKey, Scope
from common.cli import show
from common.cli.base import cli, friendly, json_option, me
from common.cli.stack import engine_for
from common.platform.settings import Settings
from common.runs.engine import Engine

COLUMNS = ("key_id", "name", "scope", "status", "created_at", "created_by", "expires_at", "last_used_at")


@cli.group()
def keys() -> None:
    """API keys, which apps send as `Authorization: Bearer <key>`. Each opens one organisation and is shown once.

    \b
    Examples:
      main.py keys create acme_corp --name app --scope run
      main.py keys rotate acme_corp --name app --grace-hours 24
      main.py keys revoke acme_corp k0123456789ab
    """


@keys.command()
@click.argument("org")
@click.option("--name", required=True, help="What the key is for, e.g. app.")
@click.option(
    "--scope",
    type=click.Choice([str(scope) for scope in Scope]),
    required=True,
    help="read: read runs. run: also start and change them. admin: also keys, credentials and settings.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="Days until it expires (default: never).")
@json_option
@click.pass_obj
@friendly
def create(settings: Settings, org: str, name: str, scope: str, days: int | None, as_json: bool) -> None:
    """Create a key and print it, this once."""
    engine = engine_for(settings, org)
    lifetime = None if days is None else timedelta(days=days)
    _show_new(engine, engine.keys.create(org, name, Scope(scope), who=me(), lifetime=lifetime), as_json)


@keys.command()
@click.argument("org")
@click.option("--name", required=True, help="The key's name.")
@click.option("--grace-hours", type=click.FloatRange(0, 8760), help="Hours after which the previous key expires.")
@json_option
@click.pass_obj
@friendly
def rotate(settings: Settings, org: str, name: str, grace_hours: float | None, as_json: bool) -> None:
    """Create a further key of a name and print it, this once. The previous key stays valid; older ones are revoked."""
    engine = engine_for(settings, org)
    grace = None if grace_hours is None else timedelta(hours=grace_hours)
    _show_new(engine, engine.keys.rotate(org, name, who=me(), grace=grace), as_json)


@keys.command()
@click.argument("org")
@click.argument("key_id")
@click.pass_obj
@friendly
def revoke(settings: Settings, org: str, key_id: str) -> None:
    """Revoke a key. The next request with it is refused."""
    revoked = engine_for(settings, org, without_plan=True).keys.revoke(org, key_id, who=me())
    click.echo(f"revoked {revoked.key_id} ({revoked.name}) of {org}")


@keys.command(name="list")
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def list_keys(settings: Settings, org: str, as_json: bool) -> None:
    """Show an organisation's keys, newest first, without their secrets."""
    engine = engine_for(settings, org)
    rows = [_row(key, engine.now()) for key in engine.keys.list(org)]
    if as_json:
        show.as_json(rows)
    else:
        show.table(f"API keys of {org}", COLUMNS, [[row[name] for name in COLUMNS] for row in rows])


def _show_new(engine: Engine, key: NewKey, as_json: bool) -> None:
    row = _row(key.info, engine.now())
    if as_json:
        show.as_json({**row, "token": key.token})
        return
    click.echo(f"{key.info.key_id} ({row['name']}, scope {row['scope']}) of {key.info.org_slug}:")
    click.echo(key.token)
    # On standard error, so that a script can pipe the key.
    click.echo("Save it now: only its hash is stored, so it can't be shown again.", err=True)


def _row(key: KeyInfo, now: datetime) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scope": str(key.scope),
        "status": key.status(now),
        "created_at": _text(key.created_at),
        "created_by": key.created_by,
        "expires_at": _text(key.expires_at),
        "last_used_at": _text(key.last_used_at),
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
