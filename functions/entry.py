"""Records whether a request has reached its function or was refused by functions-framework before."""

from flask import g


def entered() -> None:
    """Record that the request has reached its function: exceptions from now on are the function's own."""
    g.entered = True


def has_entered() -> bool:
    """Return whether the current request has reached its function."""
    return bool(g.get("entered"))
