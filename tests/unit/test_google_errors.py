"""What Google's exceptions mean: one map for every service, with what to do about each."""

import concurrent.futures

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from common.adapters.google_errors import Service
from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, PipelineOpsError, TransientError

SERVICE = Service("Store", not_found="Make it.", forbidden="Give a role.", precondition="Index it.", credentials="Key?")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (exceptions.NotFound("no such thing"), PermanentError, "no such thing Make it."),
        (exceptions.Forbidden("no"), PermanentError, "Give a role."),
        (exceptions.Unauthorized("no"), PermanentError, "Give a role."),
        (exceptions.FailedPrecondition("no index"), PermanentError, "Index it."),
        (exceptions.InvalidArgument("bad"), PermanentError, "bad"),
        (exceptions.Aborted("lost"), TransientError, "lost"),
        (exceptions.ServiceUnavailable("down"), TransientError, "down"),
        (exceptions.TooManyRequests("slowly"), TransientError, "slowly"),
        (exceptions.RetryError("gave up", exceptions.Unknown("why")), TransientError, "no answer in time"),
        (concurrent.futures.TimeoutError(), TransientError, "no answer in time"),
        (requests.ConnectionError("https://host/?key=secret"), TransientError, "no answer (ConnectionError)"),
        (TransportError("x"), TransientError, "no answer (TransportError)"),  # type: ignore[no-untyped-call]
        (DefaultCredentialsError("x"), PermanentError, "gcloud auth"),  # type: ignore[no-untyped-call]
        (RefreshError("invalid_grant", {"body": "secret"}), PermanentError, "invalid_grant Key?"),  # type: ignore[no-untyped-call]
    ],
)
def test_each_exception_has_one_meaning_and_says_what_to_do(
    error: Exception, kind: type[PipelineOpsError], text: str
) -> None:
    with pytest.raises(PipelineOpsError) as caught, SERVICE.translated("do it"):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).startswith("Store could not do it:") and text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_lost_write_is_a_conflict() -> None:
    error = SERVICE.error("do it", exceptions.Aborted("lost"))
    assert isinstance(error, TransientError) and error.kind is ErrorKind.CONFLICT


def test_what_is_not_googles_passes_as_it_is() -> None:
    assert SERVICE.error("do it", KeyError("x")) is None
    with pytest.raises(KeyError), SERVICE.translated("do it"):
        raise KeyError("x")
    ours = PermanentError("ours")
    with pytest.raises(PermanentError) as caught, SERVICE.translated("do it"):
        raise ours
    assert caught.value is ours
