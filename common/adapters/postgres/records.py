"""The records port on PostgreSQL. Versions come from a sequence, so no name ever has one twice."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.adapters.postgres.client import Postgres
from common.platform.errors import StaleRecordError
from common.ports.records import Record

if TYPE_CHECKING:
    from common.adapters.postgres.client import Cursor

NAME = re.compile(r"[\w-]+", re.ASCII)

INSERT = "INSERT INTO pipeline_ops.records (kind, org_slug, name, body) VALUES (%(kind)s, %(org)s, %(name)s, %(body)s)"
NEW_VERSION = "body = %(body)s, version = nextval('pipeline_ops.record_versions')"
ONE = "kind = %(kind)s AND org_slug = %(org)s AND name = %(name)s"

PUT = f"{INSERT} ON CONFLICT (kind, org_slug, name) DO UPDATE SET {NEW_VERSION.replace('%(body)s', 'EXCLUDED.body')}"
ADD = f"{INSERT} ON CONFLICT DO NOTHING"
REPLACE = f"UPDATE pipeline_ops.records SET {NEW_VERSION} WHERE {ONE} AND version = %(expected)s"  # noqa: S608 - constants
GET = f"SELECT version, body::text FROM pipeline_ops.records WHERE {ONE}"  # noqa: S608 - constants
DELETE = f"DELETE FROM pipeline_ops.records WHERE {ONE}"  # noqa: S608 - constants


class PostgresRecords:
    """Keeps small documents in the run store's database."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        if not _are_names(org_slug, name):
            return None
        values = {"kind": kind, "org": org_slug, "name": name}
        row = self._database.read(lambda cursor: cursor.execute(GET, values).fetchone())
        return None if row is None else Record(name, row[0], json.loads(row[1]))

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        text = json.dumps(body, allow_nan=False)
        values = {"kind": kind, "org": org_slug, "name": name, "body": text, "expected": expected}
        statement = PUT if expected is None else ADD if expected == 0 else REPLACE

        def write(cursor: "Cursor") -> int:
            row = cursor.execute(f"{statement} RETURNING version", values).fetchone()
            if row is None:
                raise StaleRecordError(f"{kind} {name!r} of {org_slug} has changed since it was read.")
            version: int = row[0]
            return version

        return Record(name, self._database.write(write), json.loads(text))

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
        behind = "" if after is None else f"AND name {'<' if newest else '>'} %(after)s"
        select = f"""
        SELECT name, version, body::text FROM pipeline_ops.records WHERE kind = %(kind)s AND org_slug = %(org)s {behind}
        ORDER BY name {"DESC" if newest else "ASC"} LIMIT %(limit)s
        """  # noqa: S608 - constants
        values = {"kind": kind, "org": org_slug, "after": after, "limit": limit}
        rows = self._database.read(lambda cursor: cursor.execute(select, values).fetchall())
        return [Record(name, version, json.loads(body)) for name, version, body in rows]

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        if not _are_names(org_slug, name):
            return False
        values = {"kind": kind, "org": org_slug, "name": name}
        return self._database.write(lambda cursor: cursor.execute(DELETE, values).rowcount) > 0


def _are_names(*names: str) -> bool:
    """Return whether documents can have these names."""
    return all(NAME.fullmatch(name) for name in names)
