"""Whether a request has reached its function, or functions-framework is still looking at it."""

from flask import g


def entered() -> None:
    """Note that the request has reached its function: what is raised from now on is the function's own."""
    g.entered = True


def has_entered() -> bool:
    """Return whether the current request has reached its function."""
    return bool(g.get("entered"))
