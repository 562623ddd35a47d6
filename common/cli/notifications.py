"""``main.py notifications``: the channels that are notified of an organisation's ended runs."""

import sys

import click
import yaml

from common.cli import show
from common.cli.base import cli, friendly, json_option, me
from common.cli.stack import engine_for
from common.notify.settings import NotificationSettings, notifications_body, settings_view
from common.platform.errors import PipelineOpsError
from common.platform.settings import Settings


@cli.group()
def notifications() -> None:
    """Notifications of an organisation's ended runs, to Slack or to a signed webhook.

    \b
    Examples:
      main.py notifications show acme_corp
      main.py notifications set acme_corp < settings.yml
      main.py notifications test acme_corp
    \b
    settings.yml (or JSON) replaces all settings:
      events: [failed, completed, cancelled]
      pipelines: [genai/payg/openai]     # default: all
      channels:
        - {name: ops, type: slack, url: "https://hooks.slack.com/services/..."}
        - {name: app, type: webhook, url: "https://...", secret: "at least 16 characters"}
    An existing channel keeps its url and secret if they are left out.
    """


@notifications.command(name="show")
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def show_settings(settings: Settings, org: str, as_json: bool) -> None:
    """Show an organisation's settings, without addresses and secrets."""
    _show(engine_for(settings, org).notifications.settings.load(org), org, as_json)


@notifications.command(name="set")
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def set_settings(settings: Settings, org: str, as_json: bool) -> None:
    """Replace an organisation's settings with those on standard input (YAML or JSON)."""
    try:
        body = yaml.safe_load(sys.stdin.read())
    except yaml.YAMLError:
        raise PipelineOpsError("Standard input is neither YAML nor JSON.") from None  # the error would quote it
    engine = engine_for(settings, org)
    saved = engine.notifications.settings.save(org, notifications_body(body), who=me())
    _show(saved, org, as_json)


@notifications.command(name="test")
@click.argument("org")
@click.option("--channel", help="Only this channel (default: all).")
@json_option
@click.pass_obj
@friendly
def send_test(settings: Settings, org: str, channel: str | None, as_json: bool) -> None:
    """Send a test. Exit code 1 if a channel did not accept it."""
    engine = engine_for(settings, org)
    results = engine.notifications.send_test(org, channel)
    engine.audit.record(org, who=me(), action="notifications.test", target=channel or "all")
    if as_json:
        show.as_json([{"channel": r.channel, "ok": r.ok, "detail": r.detail or None} for r in results])
    else:
        rows = [(r.channel, "completed" if r.ok else "failed", r.detail) for r in results]
        show.table(f"Test of {org}", ("channel", "status", "detail"), rows)
    sys.exit(0 if all(result.ok for result in results) else 1)


def _show(settings: NotificationSettings, org: str, as_json: bool) -> None:
    view = settings_view(settings)
    if as_json:
        show.as_json(view)
        return
    rows = [(channel["name"], channel["type"], channel["url"]) for channel in view["channels"]]
    show.table(f"Channels of {org}", ("channel", "type", "address"), rows)
    click.echo(f"Events: {', '.join(view['events']) or 'none'}. Pipelines: {', '.join(view['pipelines']) or 'all'}.")
