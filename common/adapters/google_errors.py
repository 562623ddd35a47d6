"""Translates Google's exceptions to this project's by what to do next: one map for every service.

REST and gRPC clients raise the same classes (``google.api_core.exceptions``), whatever the service. ``Service`` holds
what differs: the advice to a person, and a few messages of one service.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, PipelineOpsError, TransientError

MAX_CHARS = 300


def passing() -> tuple[type[Exception], ...]:
    """Return the exceptions worth an immediate retry: those that the clients retry by default."""
    from google.api_core import exceptions

    return (
        exceptions.Aborted,
        exceptions.Cancelled,
        exceptions.DeadlineExceeded,
        exceptions.InternalServerError,
        exceptions.ResourceExhausted,
        exceptions.ServiceUnavailable,
        exceptions.Unknown,
    )


def short(error: object) -> str:
    """Return the error in one line, without the request's URL and BigQuery's location and job id."""
    text = str(getattr(error, "message", "") or error).split("\n\nLocation:")[0]
    text = " ".join(re.sub(r"^(?:[A-Z]+ )?https?://\S+ ?", "", text).split())
    text = text.split("; reason:")[0]
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + "…"


def _nothing_of_its_own(_failed: str, _error: Exception) -> PipelineOpsError | None:
    return None


@dataclass(frozen=True, slots=True)
class Service:
    """One of Google's services, with advice (a sentence) for each kind of refusal.

    ``own`` is asked first and translates what only this service raises; it returns None for everything else.
    """

    name: str
    not_found: str = ""
    forbidden: str = ""
    precondition: str = ""
    credentials: str = ""
    own: Callable[[str, Exception], PipelineOpsError | None] = _nothing_of_its_own

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Raise TransientError or PermanentError instead of the client's exceptions."""
        try:
            yield
        except PipelineOpsError:
            raise
        except Exception as error:
            meaning = self.error(what, error)
            if meaning is None:
                raise
            raise meaning from error

    def error(self, what: str, error: Exception) -> PipelineOpsError | None:
        """Translate an exception raised while the service did ``what``; return None if it is not one of Google's."""
        failed = f"{self.name} could not {what}:"
        return self.own(failed, error) or self._refused(failed, error) or self._unreached(failed, error)

    def _refused(self, failed: str, error: Exception) -> PipelineOpsError | None:
        from google.api_core import exceptions

        match error:
            case exceptions.NotFound():
                return PermanentError(_told(failed, error, self.not_found))
            case exceptions.Forbidden() | exceptions.Unauthorized():
                return PermanentError(_told(failed, error, self.forbidden))
            case exceptions.FailedPrecondition():
                return PermanentError(_told(failed, error, self.precondition))
            case exceptions.BadRequest():
                return PermanentError(_told(failed, error))
            case exceptions.Aborted():  # lost against another writer
                return TransientError(_told(failed, error), kind=ErrorKind.CONFLICT)
            case exceptions.GoogleAPICallError():
                return TransientError(_told(failed, error))
            case _:
                return None

    def _unreached(self, failed: str, error: Exception) -> PipelineOpsError | None:
        import concurrent.futures

        import requests
        from google.api_core.exceptions import RetryError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

        match error:
            case DefaultCredentialsError():
                return PermanentError(
                    f"{failed} no Google credentials. Run `gcloud auth application-default login`, or give the "
                    "function a service account."
                )
            case TransportError() | requests.RequestException() | ConnectionError():
                # The type alone: these messages quote the request, secrets included.
                return TransientError(f"{failed} no answer ({type(error).__name__}).")
            case RetryError():
                cause = error.cause or error
                # A network error's text quotes the request here too.
                quotes = isinstance(cause, TransportError | requests.RequestException | ConnectionError)
                return TransientError(
                    f"{failed} no answer in time ({type(cause).__name__ if quotes else short(cause)})."
                )
            case concurrent.futures.TimeoutError() | TimeoutError():
                return TransientError(f"{failed} no answer in time.")
            case GoogleAuthError():  # its other arguments hold the whole response body
                return PermanentError(_told(failed, error.args[0] if error.args else error, self.credentials))
            case _:
                return None


def _told(failed: str, error: object, hint: str = "") -> str:
    return f"{failed} {short(error)} {hint}".rstrip()
