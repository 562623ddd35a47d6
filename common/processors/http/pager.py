"""Answers in pages: each names the next one, the last names none."""

from collections.abc import Callable, Iterator

from common.platform.errors import TransientError

MAX_PAGES = 100_000


def follow[Page](
    ask: Callable[[str | None], Page],
    following: Callable[[Page], str | None],
    *,
    api: str,
    field: str,
    most: int = MAX_PAGES,
) -> Iterator[Page]:
    """Yield every page. ``ask`` gets a page by its token (the first has none), ``following`` reads the next one's.

    ``api`` and ``field`` name the provider and where its answers have the token, for messages. Raises TransientError
    for a token that was there before: the pages would be counted twice, again and again until the attempt's time is up.
    """
    token: str | None = None
    known: set[str] = set()
    for _ in range(most):
        page = ask(token)
        yield page
        token = following(page)
        if not token:
            return
        if token in known:
            raise TransientError(f"{api}: the answers' {field} leads round in a circle.")
        known.add(token)
    raise TransientError(f"{api}: the answers' {field} leads on after {most} pages.")
