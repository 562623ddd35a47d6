"""Reads an organisation's subscriptions."""

from pathlib import Path

from pydantic import ValidationError

from common.config.problems import Finding, InvalidFileError, findings_of
from common.config.yaml_source import YamlFile, read
from common.platform.errors import nearest
from common.processors.subscriptions.charges import charges
from common.processors.subscriptions.model import FOLDER, Subscription, SubscriptionsFile


def subscription_files(root: Path) -> list[Path]:
    """Return the files of all organisations below the tree ``root``."""
    return sorted((root / FOLDER).glob("*.y*ml"))


def load_subscriptions(root: Path, org_slug: str) -> tuple[Subscription, ...]:
    """Return the organisation's subscriptions. Raises InvalidFileError with every problem in its file."""
    path = root / FOLDER / f"{org_slug}.yml"
    name = str(root.resolve().name / FOLDER / path.name)
    if not path.is_file():
        known = [p.stem for p in subscription_files(root)]
        hint = f"An organisation that has none says so with `subscriptions: []`.{nearest(org_slug, known)}"
        raise InvalidFileError([YamlFile(name, {}, {}, "").problem((), f"there is no such file. {hint}")])
    source = read(path, name)
    try:
        file = SubscriptionsFile.model_validate(source.data)
    except ValidationError as error:
        raise InvalidFileError(source.problem(*finding) for finding in findings_of(error, SubscriptionsFile)) from None
    stray = [finding for n, its in enumerate(file.subscriptions) for finding in _stray_invoices(n, its)]
    if stray:
        raise InvalidFileError(source.problem(*finding) for finding in stray)
    return file.subscriptions


def _stray_invoices(number: int, its: Subscription) -> list[Finding]:
    """Report invoices of days without a charge: they would be counted nowhere, silently."""
    return [
        (
            ("subscriptions", number, "invoices", n, "day"),
            f"nothing of {its.subscription_id} is charged on {invoice.day}. Name the first day of a cycle, or the day "
            "of a change within one (with proration: daily).",
        )
        for n, invoice in enumerate(its.invoices)
        if not any(charges(its, invoice.day, invoice.day))
    ]
