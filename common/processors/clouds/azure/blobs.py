"""Client for the blobs of an Azure Storage container."""

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import quote
from xml.etree import ElementTree

from common.ports.http import Calls
from common.processors.http.client import Api, ProviderClient
from common.processors.http.object_store import ObjectStore, Stored, xml_error
from common.processors.http.pager import follow

VERSION = "2023-11-03"
"""Version of the Blob service's REST API. Without one, or with one before 2017-11-09, it refuses tokens of Entra."""

API = Api(
    key="azure",
    name="Azure Storage",
    credential_help="The app registration needs the role Storage Blob Data Reader on the container.",
    error=xml_error,
    later=frozenset({"ServerBusy", "OperationTimedOut", "InternalError"}),
)


class Container(ObjectStore):
    """A container, read with a token; ``base`` is the storage account's address."""

    provider = API.name

    def __init__(self, calls: Calls, bearer: str, base: str, *, account: str, container: str) -> None:
        client = ProviderClient(
            calls,
            API,
            secret=bearer,
            headers={"accept": "*/*", "authorization": f"Bearer {bearer}", "x-ms-version": VERSION},
            base=base,
        )
        missing = (
            f"There is no container {container!r} in the storage account {account!r}: check both in the credential."
        )
        super().__init__(client, f"/{quote(container)}", missing)

    def objects(self, prefix: str) -> Iterator[Stored]:
        params = [("restype", "container"), ("comp", "list"), ("prefix", prefix), ("maxresults", "5000")]

        def ask(marker: str | None) -> ElementTree.Element:
            return self._xml(params if marker is None else [*params, ("marker", marker)])

        for page in follow(ask, lambda page: page.findtext("NextMarker"), api=self.provider, field="NextMarker"):
            yield from map(self._stored, page.iterfind("Blobs/Blob"))

    def _stored(self, blob: ElementTree.Element) -> Stored:
        def of(name: str) -> str:
            return blob.findtext(f"Properties/{name}") or ""

        try:
            modified = parsedate_to_datetime(of("Last-Modified"))
            return Stored(blob.findtext("Name") or "", of("Etag").strip('"'), int(of("Content-Length")), modified)
        except ValueError:
            raise self._odd() from None
