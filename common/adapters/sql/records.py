"""The records port in SQL. A version number is used once: a record deleted and made again never repeats one."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.adapters.sql.dialect import SqlDatabase, Transaction
from common.platform.errors import StaleRecordError
from common.ports.records import Record

NAME = re.compile(r"[\w-]+", re.ASCII)

ONE = "kind = :kind AND org_slug = :org AND name = :name"
GET = f"SELECT version, body FROM records WHERE {ONE}"  # noqa: S608 - constants
ADD = """
INSERT INTO records (kind, org_slug, name, body) VALUES (:kind, :org, :name, :body) ON CONFLICT DO NOTHING
RETURNING version
"""
DELETE = f"DELETE FROM records WHERE {ONE}"  # noqa: S608 - constants
DELETE_VERSION = f"{DELETE} AND version = :expected"


class SqlRecords:
    """Small documents in the run store's database."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        if not _are_names(org_slug, name):
            return None
        values = {"kind": kind, "org": org_slug, "name": name}
        row = self._database.read(lambda transaction: transaction.execute(GET, values).fetchone())
        return None if row is None else Record(name, row[0], json.loads(row[1]))

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        text = json.dumps(body, allow_nan=False)
        values = {"kind": kind, "org": org_slug, "name": name, "body": text, "expected": expected}
        add = self._database.dialect.PUT_RECORD if expected is None else ADD

        def write(transaction: Transaction) -> int:
            # DELETE and INSERT instead of UPDATE: the new row takes a new version. A rival replacing the same version
            # waits for this transaction to end, then finds no row and is stale.
            gone = 1 if not expected else transaction.execute(DELETE_VERSION, values).rowcount
            rows = transaction.execute(add, values).fetchall() if gone else []
            if not rows:
                raise StaleRecordError(f"{kind} {name!r} of {org_slug} has changed since it was read.")
            version: int = rows[0][0]
            return version

        return Record(name, self._database.write(write, durable=True), json.loads(text))

    def list(
        self,
        kind: str,
        org_slug: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest: bool = False,
    ) -> Sequence[Record]:
        if not _are_names(org_slug):
            return []
        values: dict[str, Any] = {"kind": kind, "org": org_slug}
        more = f" ORDER BY name {'DESC' if newest else 'ASC'}"
        if after is not None:
            values["after"] = after
            more = f" AND name {'<' if newest else '>'} :after{more}"
        if limit is not None:
            values["limit"] = limit
            more += " LIMIT :limit"
        select = f"SELECT name, version, body FROM records WHERE kind = :kind AND org_slug = :org{more}"  # noqa: S608
        rows = self._database.read(lambda transaction: transaction.execute(select, values).fetchall())
        return [Record(name, version, json.loads(body)) for name, version, body in rows]

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        if not _are_names(org_slug, name):
            return False
        values = {"kind": kind, "org": org_slug, "name": name}
        return self._database.write(lambda db: db.execute(DELETE, values).rowcount, durable=True) > 0


def _are_names(*names: str) -> bool:
    """Return whether records can have these names."""
    return all(NAME.fullmatch(name) for name in names)
