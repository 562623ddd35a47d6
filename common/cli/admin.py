"""Commands for configs and credentials."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, me
from common.cli.stack import attached, engine_for
from common.config.check import validate_tree
from common.config.providers import load_providers
from common.platform.errors import PipelineOpsError, nearest
from common.platform.settings import Settings, environment_variable
from common.ports.secrets import CredentialInfo
from common.ports.store import all_organisations
from common.processors.online_checks import OnlineChecks, Verdict
from common.processors.registry import REGISTRY

CREDENTIAL_ID = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")


@cli.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--online", is_flag=True, help="Also make one small call to each provider with each stored credential.")
@click.option("--org", help="With --online: only the credentials of this organisation.")
@json_option
@click.pass_obj
@friendly
def validate(settings: Settings, path: Path | None, online: bool, org: str | None, as_json: bool) -> None:
    """Check every pipeline, table contract, provider and SQL file, or just PATH. Exit code 1 if anything is wrong.

    \b
    Examples:
      main.py validate
      main.py validate --online --org acme_corp
    """
    if org and not online:
        raise click.UsageError("--org needs --online.")
    sql_check = bootstrap.sql_check()
    results = validate_tree(settings.configs, REGISTRY, path, sql_check)
    wrong = [r for r in results if not r.ok]
    # Not with wrong files: which credentials are needed is read from them.
    verdicts = _online(settings, org) if online and not wrong else []
    refused = [verdict for verdict in verdicts if verdict.is_good is False]
    if as_json:
        rows = [{"path": str(r.path), "route": r.route, "ok": r.ok, "problems": list(r.problems)} for r in results]
        show.as_json([*rows, *map(_plain, verdicts)])
    else:
        for result in results:
            click.echo(
                f"{'ok   ' if result.ok else 'WRONG'} {result.path}" + (f"  ({result.route})" if result.route else "")
            )
            for problem in result.problems:
                click.echo(f"  {problem}")
        click.echo(f"{len(results)} files, {len(wrong)} wrong")
        if sql_check is None:
            click.echo(
                "No SQL was checked: Google's analyzer is not installed here. To install it: pip install zetasql==0.1.5"
            )
        for verdict in verdicts:
            word = {True: "ok   ", False: "WRONG", None: "-    "}[verdict.is_good]
            info = verdict.credential
            click.echo(f"{word} {info.org_slug} {info.credential_id} ({info.provider}): {verdict.text}")
        if online and wrong:
            click.echo("No provider was called: fix the files first.")
        elif online:
            click.echo(f"{len(verdicts)} credentials, {len(refused)} wrong")
    sys.exit(1 if wrong or refused else 0)


def _online(settings: Settings, org: str | None) -> list[Verdict]:
    """Try the credentials of one organisation, or of all that have a plan."""
    engine = bootstrap.build(attached(settings))
    if org:
        engine.plans.limits(org)  # raises for a misspelt name, which would have no credentials to try
    orgs = [org] if org else list(all_organisations(engine.plans))
    attempts = engine.attempts
    checks = OnlineChecks(engine.settings, engine.configs, engine.credentials, attempts.provider_url, attempts.google)
    return list(checks.verdicts(orgs))


def _plain(verdict: Verdict) -> dict[str, object]:
    info = verdict.credential
    credential = {"org": info.org_slug, "credential_id": info.credential_id, "provider": info.provider}
    return {**credential, "ok": verdict.is_good, "text": verdict.text}


@cli.command()
@click.pass_obj
@friendly
def schema(settings: Settings) -> None:
    """Write the JSON Schemas in configs/, with which editors complete and check pipelines and contracts."""
    from common.config.json_schema import schema_texts

    for name, text in schema_texts(REGISTRY).items():
        path = settings.configs / name
        path.write_text(text, "utf-8")
        click.echo(f"wrote {path}")


@cli.group()
def credentials() -> None:
    """Provider credentials, encrypted at rest; secrets are never shown again.

    \b
    Examples:
      main.py credentials add acme_corp openai              prompts for the key
      main.py credentials add acme_corp openai --from-env OPENAI_ADMIN_KEY
      some-secret-tool | main.py credentials add acme_corp openai --id cred_openai_eu
    """


@credentials.command(name="add")
@click.argument("org")
@click.argument("provider")
@click.option("--id", "credential_id", help="The credential's id (default: cred_<provider>).")
@click.option("--from-env", metavar="NAME", help="Read the secret from this environment variable.")
@click.pass_obj
@friendly
def add_credential(
    settings: Settings, org: str, provider: str, credential_id: str | None, from_env: str | None
) -> None:
    """Store a credential. The secret comes from a prompt, a pipe or the environment, never from an argument.

    (Arguments are visible to other users in the process list and stay in the shell's history.)
    """
    providers = load_providers(settings.configs)
    if provider not in providers:
        raise PipelineOpsError(
            f"No provider {provider!r}.{nearest(provider, providers)} Known: {', '.join(providers)}."
        )
    name = credential_id or f"cred_{provider}"
    if not CREDENTIAL_ID.match(name):
        raise PipelineOpsError(
            f"--id: {name!r} must have only lower-case letters, digits, '_' and '-', and start with a letter."
        )
    engine = engine_for(settings, org)
    secret = _read_secret(providers[provider].credential_hint, from_env)
    engine.credentials.add(CredentialInfo(org, name, provider, datetime.now(UTC)), secret)
    engine.audit.record(org, who=me(), action="credential.add", target=name, details={"provider": provider})
    click.echo(f"stored {name} for {org}")


@credentials.command(name="list")
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def list_credentials(settings: Settings, org: str, as_json: bool) -> None:
    """Show an organisation's credentials, without their secrets."""
    stored = engine_for(settings, org).credentials.list(org)
    rows = [(c.credential_id, c.provider, c.created_at.isoformat()) for c in stored]
    columns = ("credential_id", "provider", "created_at")
    if as_json:
        show.as_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        show.table(f"Credentials of {org}", columns, rows)


@credentials.command(name="remove")
@click.argument("org")
@click.argument("credential_id")
@click.pass_obj
@friendly
def remove_credential(settings: Settings, org: str, credential_id: str) -> None:
    """Delete a credential. Rows that were loaded with it keep its id."""
    engine = engine_for(settings, org, without_plan=True)
    engine.credentials.remove(org, credential_id)
    engine.audit.record(org, who=me(), action="credential.remove", target=credential_id)
    click.echo(f"removed {credential_id} of {org}")


def _read_secret(hint: str, from_env: str | None) -> str:
    if from_env is not None:
        secret = environment_variable(from_env)
    elif sys.stdin.isatty():
        secret = click.prompt(hint or "Secret", hide_input=True)
    else:
        secret = sys.stdin.read()
    secret = secret.strip()  # pipes and pasted text end with a newline, which no provider accepts in a header
    if not secret:
        where = f"environment variable {from_env}" if from_env else "standard input"
        raise PipelineOpsError(f"No secret: {where} is empty.")
    return secret
