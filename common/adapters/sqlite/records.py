"""The records port on SQLite. A row's id is its version: replacing makes a new row, and no id is given twice."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from common.adapters.sqlite.database import Database
from common.platform.errors import StaleRecordError
from common.ports.records import Record

ONE = "WHERE kind = ? AND org_slug = ? AND name = ?"


class SqliteRecords:
    """Small documents in the run store's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        select = f"SELECT version, body FROM records {ONE}"  # noqa: S608 - constants
        row = self._database.connection().execute(select, (kind, org_slug, name)).fetchone()
        return None if row is None else Record(name, row[0], json.loads(row[1]))

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        text = json.dumps(body, allow_nan=False)
        place = (kind, org_slug, name)

        def replace(db: sqlite3.Connection) -> int:
            if expected is not None:
                row = db.execute(f"SELECT version FROM records {ONE}", place).fetchone()  # noqa: S608 - constants
                if (0 if row is None else row[0]) != expected:
                    raise StaleRecordError(f"{kind} {name!r} of {org_slug} has changed since it was read.")
            insert = "INSERT OR REPLACE INTO records (kind, org_slug, name, body) VALUES (?, ?, ?, ?)"
            version = db.execute(insert, (*place, text)).lastrowid
            assert version is not None
            return version

        return Record(name, self._database.write(replace, durable=True), json.loads(text))

    def list(
        self,
        kind: str,
        org_slug: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest: bool = False,
    ) -> Sequence[Record]:
        behind = "" if after is None else f"AND name {'<' if newest else '>'} :after "
        order = f"{behind}ORDER BY name {'DESC' if newest else 'ASC'} LIMIT :limit"
        select = f"SELECT name, version, body FROM records WHERE kind = :kind AND org_slug = :org {order}"  # noqa: S608
        named = {"kind": kind, "org": org_slug, "after": after, "limit": -1 if limit is None else limit}
        rows = self._database.connection().execute(select, named)
        return [Record(name, version, json.loads(body)) for name, version, body in rows]

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        delete = f"DELETE FROM records {ONE}"  # noqa: S608 - constants
        place = (kind, org_slug, name)
        return self._database.write(lambda db: db.execute(delete, place).rowcount, durable=True) > 0
