"""One part of the API: the routes of one subject."""

from flask_openapi.blueprint import APIBlueprint


def part(name: str, about: str | None) -> APIBlueprint:
    """Return a blueprint. Its operation ids are ``<part>.<function>``, as in ``access.OPERATIONS``."""

    def operation_id(*, name: str, path: str, method: str, bp_name: str) -> str:
        return f"{bp_name}.{name}"

    tag = {"name": name, "description": about or ""}
    return APIBlueprint(name, __name__, abp_tags=[tag], operation_id_callback=operation_id)
