"""Data from outside, checked: what a model does not name is refused, and what was read does not change."""

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(extra="forbid", frozen=True)
"""Also for dataclasses that pydantic checks (``__pydantic_config__``)."""


class StrictModel(BaseModel):
    """Base of every file, request and message: a misspelt key is an error and never a silently ignored setting."""

    model_config = STRICT
