"""``GoogleCloud`` with Google's own clients: tokens, and tables of other projects."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, JOB_TIMEOUT_S, patience
from common.adapters.bigquery.names import checked, parameters
from common.config.providers import is_loopback
from common.platform.errors import PermanentError, TransientError
from common.ports.google import SourceField, SourceTable

if TYPE_CHECKING:
    import pyarrow
    from google.cloud import bigquery

BIGQUERY_SCOPE = "https://www.googleapis.com/auth/bigquery"
PAGE_ROWS = 5_000
KEY_FIELDS = ("project_id", "private_key_id", "private_key", "client_email")
TOKEN_TIMEOUT_S = 30.0

Identity = tuple[str, tuple[str, ...]]


class GoogleCloudAdapter:
    """Acts as the service account of a key, or as the function's own.

    ``token_url`` returns the address where keys are exchanged for tokens. The address in the key itself is ignored: a
    customer who uploads a key must not choose where our requests go. With ``bigquery_url``, tables are read from the
    emulator there.
    """

    def __init__(self, project: str, token_url: Callable[[], str], bigquery_url: str | None = None) -> None:
        self._project, self._token_url, self._bigquery_url = project, token_url, bigquery_url
        self._lock = threading.Lock()
        self._known: dict[Identity, Any] = {}

    def token(self, key: str | None, scopes: Sequence[str], *, timeout_s: float) -> str:
        from google.auth.exceptions import GoogleAuthError, TransportError

        credentials = self._credentials(key, tuple(scopes))
        try:
            with self._lock:  # two threads that refresh one credential at once could each read the other's half
                if not credentials.valid:
                    credentials.refresh(self._request(timeout_s))
                return str(credentials.token)
        except TransportError as error:
            raise TransientError(f"Google gave no token: it does not answer ({type(error).__name__}).") from None
        except GoogleAuthError as error:
            # google-auth wraps an outage of the metadata server as a refusal. Its text repeats the server's answer.
            if isinstance(error.__cause__, TransportError):
                raise TransientError("Google gave no token: the metadata server does not answer.") from None
            reason = str(error.args[0])[:200] if error.args else type(error).__name__
            if error.retryable:  # 408, 429, 5xx and such, after three tries by google-auth itself
                raise TransientError(f"Google gave no token: {reason}.") from None
            whose = "us" if key is None else f"the service account {credentials.service_account_email}"
            raise PermanentError(f"Google does not accept {whose}: {reason}.") from None

    def find_table(self, key: str | None, table_id: str) -> SourceTable | None:
        from google.api_core.exceptions import NotFound

        with translated(f"look at {table_id}"):
            try:
                table = self._client(key).get_table(checked(table_id), retry=patience(), timeout=CALL_TIMEOUT_S)
            except NotFound:
                return None
        return SourceTable(dict(_fields(table.schema, "")), _partition(table.time_partitioning))

    def read(
        self, key: str | None, sql: str, params: Mapping[str, Any], *, max_bytes: int
    ) -> "Iterator[pyarrow.RecordBatch]":
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            query_parameters=parameters(params), maximum_bytes_billed=max_bytes, use_query_cache=False
        )
        with translated("read the table"):
            job = self._client(key).query(sql, config, job_retry=None, retry=patience(), timeout=CALL_TIMEOUT_S)
            rows = job.result(retry=patience(), timeout=JOB_TIMEOUT_S, page_size=PAGE_ROWS)
            yield from rows.to_arrow_iterable()

    def _client(self, key: str | None) -> "bigquery.Client":
        from google.cloud import bigquery

        if self._bigquery_url is not None:
            from google.auth.credentials import AnonymousCredentials

            nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
            return bigquery.Client(self._project, nobody, client_options={"api_endpoint": self._bigquery_url})
        with translated("connect to BigQuery"):
            credentials = self._credentials(key, (BIGQUERY_SCOPE,))
            return bigquery.Client(self._project if key is None else credentials.project_id, credentials)

    def _credentials(self, key: str | None, scopes: tuple[str, ...]) -> Any:
        """Return the credentials of a key; cached, so that a token is requested once an hour only."""
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.oauth2 import service_account

        # A hash, so that the cache holds no second copy of the private key.
        identity = (sha256((key or "").encode()).hexdigest(), scopes)
        with self._lock:
            if identity not in self._known:
                try:
                    if key is None:
                        self._known[identity] = google.auth.default(scopes=scopes)[0]
                    else:
                        given = json.loads(key)
                        # Only these fields: a key file can also name hosts (token_uri, universe_domain), and a customer
                        # who uploads one must not choose where our requests go.
                        info = {name: given[name] for name in KEY_FIELDS} | {"token_uri": self._token_url()}
                        self._known[identity] = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                            info, scopes=scopes
                        )
                except DefaultCredentialsError:
                    raise PermanentError(
                        "There are no Google credentials here: give the function a service account, or run "
                        "`gcloud auth application-default login`."
                    ) from None
                except (ValueError, TypeError, KeyError):  # not chained: the message can quote the key
                    raise PermanentError(
                        "The service account's key has no private key that can be read: paste its JSON file whole."
                    ) from None
            return self._known[identity]

    def _request(self, timeout_s: float) -> Any:
        """Return google-auth's transport for a token request, with one deadline for all of its tries."""
        import requests
        from google.auth.exceptions import TransportError
        from google.auth.transport.requests import Request

        session = requests.Session()
        # A proxy from the environment would not reach a sandbox on this machine's loopback.
        session.trust_env = not is_loopback(urlsplit(self._token_url()).hostname or "")
        request, deadline = Request(session), monotonic() + timeout_s

        def send(**asked: Any) -> Any:
            left = deadline - monotonic()
            if left <= 0:
                raise TransportError("no answer in time")  # type: ignore[no-untyped-call]
            # A redirect would carry the signed assertion to a host that is not in the registry.
            return request(**{**asked, "timeout": min(TOKEN_TIMEOUT_S, left), "allow_redirects": False})

        return send


def _partition(partitioning: Any) -> str:
    if partitioning is None:
        return ""
    if partitioning.field is None:  # by ingestion time; only daily partitions have the pseudo column _PARTITIONDATE
        return "_PARTITIONDATE" if partitioning.type_ == "DAY" else ""
    return str(partitioning.field)


def _fields(schema: Sequence[Any], prefix: str) -> Iterator[tuple[str, SourceField]]:
    for field in schema:
        path = prefix + field.name
        yield path, SourceField(field.field_type, field.mode == "REPEATED")
        if field.field_type in ("RECORD", "STRUCT"):
            yield from _fields(field.fields, path + ".")
