"""Every model of data from outside has one base, which refuses what it does not name."""

import pkgutil
from importlib import import_module
from inspect import getmembers, isclass

import pytest
from pydantic import BaseModel, ValidationError

import common
import functions
from common.platform.strict import StrictModel
from functions.api.inputs import Headers

OPEN = {"functions.api.views.Problem"}
"""RFC 9457 lets a problem document have members of its own kind."""


def models() -> set[type[BaseModel]]:
    """Return every model that the product declares."""
    modules = [
        info.name for root in (common, functions) for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
    ]
    return {
        member
        for name in modules
        for _, member in getmembers(import_module(name), isclass)
        if issubclass(member, BaseModel) and member.__module__.startswith(("common.", "functions."))
    }


def named(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def test_every_model_derives_from_the_strict_one() -> None:
    assert {named(model) for model in models() if not issubclass(model, StrictModel)} == OPEN


def test_no_model_loosens_the_strict_config_but_those_of_headers() -> None:
    """A request has many headers that mean nothing to us."""
    strict = [model for model in models() if issubclass(model, StrictModel)]
    assert len(strict) > 100
    assert all(model.model_config["frozen"] for model in strict)
    assert all(issubclass(model, Headers) for model in strict if model.model_config["extra"] != "forbid")


def test_a_misspelt_key_is_refused_and_what_was_read_stays() -> None:
    class Read(StrictModel):
        name: str

    with pytest.raises(ValidationError, match="Extra inputs"):
        Read.model_validate({"name": "a", "nmae": "b"})
    with pytest.raises(ValidationError, match="frozen"):
        Read(name="a").name = "b"  # type: ignore[misc]
