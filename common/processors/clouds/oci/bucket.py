"""Client for a bucket of OCI's Object Storage, such as that of Oracle's own cost reports."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from common.config.providers import filled
from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.bills.cells import timestamp
from common.processors.clouds.oci.signature import OciKey, signer
from common.processors.http.client import Api, ErrorBody, ProviderClient, ProviderNotFoundError
from common.processors.http.object_store import ObjectStore, Stored
from common.processors.http.pager import follow

REPORTS = "bling"
"""Oracle's namespace of the reports of all tenancies; a bucket's name is its tenancy's OCID."""


def oci_error(body: bytes) -> ErrorBody:
    """Read ``{"code": …, "message": …}``."""
    try:
        values = json.loads(body)
        return ErrorBody(str(values["code"]), str(values["message"]))
    except (ValueError, RecursionError, LookupError, TypeError):
        return ErrorBody()


API = Api(
    key="oci",
    name="OCI Object Storage",
    credential_help="The user's group needs: endorse group … to read objects in tenancy usage-report.",
    error=oci_error,
    later=frozenset({"TooManyRequests", "IncorrectState"}),
)


class OciBucket(ObjectStore):
    """A bucket, read with a user's key. An object's time is that of its creation."""

    provider = API.name

    def __init__(self, calls: Calls, key: OciKey, *, region: str, namespace: str, bucket: str) -> None:
        client = ProviderClient(
            calls,
            API,
            secret=key.fingerprint,
            headers={"accept": "*/*"},
            base=filled(calls.provider_url(key.address("objectstorage")), region=region),
            sign=signer(key, calls.now),
        )
        # OCI responds 404 both for a bucket that does not exist and for one that the user may not see.
        missing = (
            f"There is no bucket {bucket!r} of cost reports in {region}, or it may not be read. Is that the tenancy's "
            f"home region? {API.credential_help}"
        )
        super().__init__(client, f"/n/{quote(namespace)}/b/{quote(bucket, safe='')}/o", missing)

    def objects(self, prefix: str) -> Iterator[Stored]:
        # Without ``fields`` OCI lists names only.
        params = [("prefix", prefix), ("fields", "name,size,etag,timeCreated"), ("limit", "1000")]

        def ask(start: str | None) -> dict[str, Any]:
            return self._page(params if start is None else [*params, ("start", start)])

        def following(page: dict[str, Any]) -> str | None:
            token = page.get("nextStartWith")
            return None if token is None else self._goes_on(token)

        for page in follow(ask, following, api=self.provider, field="nextStartWith"):
            yield from map(self._stored, page["objects"])

    def _page(self, params: list[tuple[str, str]]) -> dict[str, Any]:
        try:
            page = self._client.get_json(self._base, params).body
        except ProviderNotFoundError:
            raise PermanentError(self._missing) from None
        if not isinstance(page, dict) or not isinstance(page.get("objects"), list):
            raise self._odd()
        return page

    def _stored(self, item: Any) -> Stored:
        try:
            return Stored(item["name"], item["etag"], int(item["size"]), timestamp(item["timeCreated"]))
        except (LookupError, TypeError, ValueError):
            raise self._odd() from None
