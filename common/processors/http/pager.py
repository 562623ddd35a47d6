"""Follows paged responses: each names the next page, the last names none."""

from collections.abc import Callable, Iterator

from common.platform.errors import TransientError

# A server that makes up new tokens for ever ends here; no report of a run has so many pages.
MAX_PAGES = 100_000


def follow[Page](
    ask: Callable[[str | None], Page],
    following: Callable[[Page], str | None],
    *,
    api: str,
    field: str,
    most: int = MAX_PAGES,
) -> Iterator[Page]:
    """Yield every page. ``ask`` fetches a page by its token (None for the first), ``following`` reads the next token.

    ``api`` and ``field`` name the provider and the token's field, for messages. Raises TransientError for a token that
    came before: its pages would be counted twice, over and over until the attempt runs out of time.
    """
    token: str | None = None
    seen: set[str] = set()
    for _ in range(most):
        page = ask(token)
        yield page
        token = following(page)
        if not token:
            return
        if token in seen:
            raise TransientError(f"{api}: the answers' {field} leads round in a circle.")
        seen.add(token)
    raise TransientError(f"{api}: the answers' {field} leads on after {most} pages.")
