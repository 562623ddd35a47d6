"""What Google's clients raise, the same for all of them."""

MAX_CHARS = 300


def passing() -> tuple[type[Exception], ...]:
    """Return what is worth another try at once, as the clients' own defaults have it."""
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


def short(error: Exception) -> str:
    """Return what went wrong in a line."""
    text = " ".join(str(getattr(error, "message", "") or error).split())
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + "…"
