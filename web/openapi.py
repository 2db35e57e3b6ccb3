"""The OpenAPI document, made from the views and the models that they name."""

import copy
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from spectree import Response as Answers
from spectree import SpecTree

from web.answers import Problem
from web.problems import PROBLEM_TYPE

View = TypeVar("View", bound=Callable[..., Any])
PROBLEMS: dict[str, Any] = {f"HTTP_{status}": Problem for status in (401, 403, 422, 429, 503)}
NOT_FOUND = PROBLEMS | {"HTTP_404": Problem}
_VALUE_REF = {"$ref": "#/components/schemas/ParameterValue"}
_PARAMETER_VALUE = {
    "description": "What a parameter may be. Larger numbers are sent as text.",
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "number", "minimum": -(2**63), "exclusiveMaximum": 2**63},
        {"type": "array", "items": _VALUE_REF},
        {"type": "object", "additionalProperties": _VALUE_REF},
    ],
}

spec = SpecTree(
    "flask",
    mode="strict",
    title="Nextflow Controller",
    description="Runs Nextflow pipelines, one at a time, and shows them live.",
    openapi_version="3.1.0",
    annotations=False,
    naming_strategy=lambda model: model.__name__,
    nested_naming_strategy=lambda _parent, child: child,
)


def describe(answer: Any, problems: dict[str, Any] = PROBLEMS, **more: Any) -> Callable[[View], View]:
    """Say in the document what a view takes and gives; the view itself checks what it takes."""
    answers = Answers(**({"HTTP_200": answer} | problems | more.pop("answers", {})))
    described: Callable[[View], View] = spec.validate(resp=answers, skip_validation=True, **more)
    return described


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    made: dict[str, Any] = copy.deepcopy(spec.spec)
    for path in made["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                _name_problems(answer.get("content", {}))
            # The web server's own answer, in its own words, before any view is asked.
            operation["responses"]["414"] = {"description": "URI Too Long"}
    # pydantic's own words for this would make error messages of fifteen lines.
    shapes = made["components"]["schemas"]
    shapes["ParameterValue"] = _PARAMETER_VALUE
    shapes["RunRequest"]["properties"]["parameters"]["anyOf"][0]["additionalProperties"] = _VALUE_REF
    return made | {"info": made["info"] | {"version": package_version()}}


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("nextflow-controller")
    except PackageNotFoundError:
        return "0"


def _name_problems(content: dict[str, Any]) -> None:
    """Give errors their own media type; spectree calls all answers JSON."""
    shape = content.get("application/json", {})
    if shape.get("schema", {}).get("$ref", "").endswith("/Problem"):
        content[PROBLEM_TYPE] = content.pop("application/json")
