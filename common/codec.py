"""Values of the domain to JSON and back. Decoding checks types, so a foreign or damaged document is refused."""

from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from common.domain.model import Receipt, Run


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode_run(run: Run) -> bytes:
    """Return the run as JSON, without its ``version``, which the store keeps beside it."""
    data: bytes = _adapter(Run).dump_json(run, exclude={"version"}, exclude_defaults=True)
    return data


def decode_run(body: bytes | str, version: int) -> Run:
    """Return the run that ``encode_run`` wrote."""
    run: Run = _adapter(Run).validate_json(body)
    return replace(run, version=version)


def encode_receipt(receipt: Receipt) -> dict[str, Any]:
    """Return the receipt as plain JSON data."""
    data: dict[str, Any] = _adapter(Receipt).dump_python(receipt, mode="json")
    return data


def decode_receipt(data: Any) -> Receipt:
    """Return the receipt that ``encode_receipt`` made."""
    receipt: Receipt = _adapter(Receipt).validate_python(data)
    return receipt
