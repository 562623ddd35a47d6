"""Strict models for data from outside: unknown fields are refused, and values are frozen."""

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(extra="forbid", frozen=True)
"""Also for dataclasses that pydantic checks (``__pydantic_config__``)."""


class StrictModel(BaseModel):
    """Base of every file, request and message: a misspelt key is an error, never a silently ignored setting."""

    model_config = STRICT
