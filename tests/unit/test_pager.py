"""Pages are followed to the last one, each once, and never round in a circle."""

from collections.abc import Mapping

import pytest

from common.platform.errors import TransientError
from common.processors.http.pager import follow


def walked(following: Mapping[str | None, str | None], **more: int) -> list[str | None]:
    """Return the tokens that were asked for; ``following`` is what each page names as the next."""
    return list(follow(lambda token: token, lambda page: following[page], api="Api", field="next", **more))


def test_every_page_is_read_once_and_the_last_one_ends_it() -> None:
    assert walked({None: "a", "a": "b", "b": None}) == [None, "a", "b"]


def test_an_empty_token_is_none() -> None:
    assert walked({None: ""}) == [None]


@pytest.mark.parametrize("circle", [{None: "a", "a": "a"}, {None: "a", "a": "b", "b": "a"}], ids=["itself", "two"])
def test_a_token_that_was_there_before_is_given_up(circle: Mapping[str | None, str | None]) -> None:
    with pytest.raises(TransientError, match="^Api: the answers' next leads round in a circle"):
        walked(circle)


def test_pages_without_end_are_given_up() -> None:
    endless = {None: "1", **{str(n): str(n + 1) for n in range(1, 9)}}
    with pytest.raises(TransientError, match="leads on after 5 pages"):
        walked(endless, most=5)


def test_a_page_is_asked_for_only_when_the_one_before_was_taken() -> None:
    asked: list[str | None] = []
    pages = follow(lambda token: asked.append(token), lambda _page: "x", api="Api", field="next")
    next(pages)
    assert asked == [None]
