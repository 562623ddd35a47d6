"""Sends a POST to an address that an organisation chose, and only to hosts that the operator allows.

No redirect is followed, the response's body is not read, and error texts show no more of the address than its host.
"""

import re
from urllib.parse import urlsplit

from common.config.hosts import AllowedHosts
from common.notify.channels.base import Post
from common.platform.errors import PermanentError, StepTimeoutError, TransientError
from common.platform.time_limit import limited

TIMEOUT_S = 10.0
TOTAL_S = 20.0
"""Bounds the whole call: TIMEOUT_S applies to each read, so a receiver that trickles would hold it for ever."""

MAX_URL_CHARS = 2_000
_URL = re.compile(
    r"https?://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?"
    r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII,
)
_AGAIN = frozenset({408, 425, 429})


def check_url(url: str, hosts: AllowedHosts) -> str:
    """Return the host of an address that may be sent to. Raises PermanentError that says why it may not.

    The pattern admits nothing that two URL parsers could read differently: no user, no fragment, no backslash.
    """
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_CHARS else None
    if match is None:
        raise PermanentError("url: must be https://host/path in ASCII, without user or fragment.")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    refusal = hosts.refusal(parts.scheme, host, match["port"])
    if refusal:
        raise PermanentError(f"url: {refusal}")
    return host


def send(url: str, post: Post, key: str, hosts: AllowedHosts) -> None:
    """Send it once. Raises TransientError if another try may help, else PermanentError."""
    host = check_url(url, hosts)  # again: the operator may have removed the host since it was set
    try:
        status = limited(lambda: _status(url, post, key, hosts.is_here(host)), TOTAL_S, "notification")
    except StepTimeoutError:
        raise TransientError(f"{host} did not answer within {TOTAL_S:g} s.") from None
    if status in _AGAIN or status >= 500:
        raise TransientError(f"{host} answered {status}.")
    if 300 <= status < 400:
        raise PermanentError(f"{host} answered {status}, a redirect, which is not followed. Give the final address.")
    if status >= 400:
        raise PermanentError(f"{host} answered {status}: it refused the notification. Check address and secret.")


def _status(url: str, post: Post, key: str, is_here: bool) -> int:
    import httpx2

    headers = {**post.headers, "Idempotency-Key": key, "User-Agent": "pipeline-ops"}
    try:
        # Without the environment's proxy for this machine: a proxy can't reach our loopback.
        with (
            httpx2.Client(follow_redirects=False, timeout=TIMEOUT_S, trust_env=not is_here) as http,
            http.stream("POST", url, content=post.body, headers=headers) as response,
        ):
            return int(response.status_code)
    except httpx2.TimeoutException:
        raise TransientError(f"{urlsplit(url).hostname} did not answer in time.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        # The type alone: the text of such errors can quote the address.
        raise TransientError(f"{urlsplit(url).hostname} could not be reached ({type(error).__name__}).") from None
