"""Shapes of requests, and how a request becomes one; the OpenAPI document is made from them."""

import re
from typing import Annotated, Any, Literal, TypeVar

from flask import request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from shared.runs import RunStatus

MAX_BODY_BYTES = 524_288
_MAX_DEPTH = 32
# `user:password@` anywhere, and a user of HTTP, which is as often a token.
_CREDENTIALS = re.compile(r":(?![/\\])[^@\s]+@|https?:[/\\]+[^/\s]*@", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# The rules below once more, for the OpenAPI document.
_LINE_PATTERN = r"^(?!\s)[^\u0000-\u001f\u007f\u2028\u2029]*(?<!\s)$"
_WORD_PATTERN = r"^(?![-@])(?!.*:(?![/\\])[^@\s]+@)(?!.*[hH][tT][tT][pP][sS]?:[/\\]+[^/\s]*@)" + _LINE_PATTERN[1:]
Model = TypeVar("Model", bound=BaseModel)


class InvalidRequest(Exception):
    """What a client sent cannot be used; `errors` says where and why."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("The request is not valid.")
        self.errors = errors


def _word(text: str) -> str:
    if _CREDENTIALS.search(text):
        raise ValueError("must not hold a password: put it into Nextflow's scm file on the worker's machine")
    if text.startswith(("-", "@")):
        raise ValueError("must not start with '-' or '@', which would make it an option")
    return _line(text)


def _line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must be one line without control characters")
    if text != text.strip():
        raise ValueError("must not begin or end with a space")
    return text


def _directory(text: str) -> str:
    if not text.startswith("/") and not re.match(r"\w+://", text):
        raise ValueError("must be an absolute path or a URI such as s3://bucket/work")
    return _word(text)


def _values(parameters: dict[str, Any]) -> dict[str, Any]:
    for name in parameters:
        if not name or _CONTROL.search(name):
            raise ValueError(f"the name {name[:50]!r} must be one line and not empty")
    _check_values(parameters, _MAX_DEPTH)
    return parameters


def _check_values(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, int | float) and not -(2**63) <= value < 2**63:
        raise ValueError(f"holds {value}, which is beyond 64 bits; send it as text")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check_values(item, depth - 1)


Word = Annotated[str, AfterValidator(_word), Field(json_schema_extra={"pattern": _WORD_PATTERN})]
Line = Annotated[str, AfterValidator(_line), Field(json_schema_extra={"pattern": _LINE_PATTERN})]
Directory = Annotated[
    str, AfterValidator(_directory), Field(json_schema_extra={"pattern": r"^(?=/|\w+://)" + _WORD_PATTERN[1:]})
]
Values = Annotated[
    dict[str, Any],
    AfterValidator(_values),
    Field(
        json_schema_extra={
            "propertyNames": {"pattern": r"^[^\u0000-\u001f\u007f\u2028\u2029]+$"},
        }
    ),
]
# Without a pipeline there must be a run to take it from, and a session id is none.
_NAMES_SOMETHING: dict[str, Any] = {
    "anyOf": [
        {"required": ["pipeline"], "properties": {"pipeline": {"type": "string"}}},
        {
            "required": ["resume"],
            "properties": {"resume": {"type": "string", "not": {"pattern": f"^{_UUID.pattern}$"}}},
        },
    ]
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RunRequest(_Strict):
    """What to run, and how."""

    model_config = ConfigDict(json_schema_extra=_NAMES_SOMETHING)
    pipeline: Annotated[Word, Field(min_length=1, max_length=1024)] | None = Field(
        None,
        description="A path, a directory of PIPELINES_DIR, `owner/repository`, or a Git URL. "
        "May be left out when `resume` names a run.",
        examples=["hello", "nextflow-io/hello"],
    )
    revision: Annotated[Word, Field(min_length=1, max_length=256)] | None = Field(
        None, description="A branch, tag or commit of a repository; a pipeline of PIPELINES_DIR has none."
    )
    profile: Annotated[Word, Field(min_length=1, max_length=256)] | None = Field(
        None, description="Configuration profiles, with commas between."
    )
    parameters: Values | None = Field(
        None, description="The pipeline's parameters; numbers, booleans and lists keep their type."
    )
    workdir: Annotated[Directory, Field(max_length=1024)] | None = Field(
        None, description="Nextflow's work directory; by default one of the run's session."
    )
    config: Annotated[str, Field(max_length=65_536)] | None = Field(
        None, description="More Nextflow configuration, as text."
    )
    resume: Annotated[Word, Field(min_length=1, max_length=128)] | None = Field(
        None,
        description="A run, or a Nextflow session id, whose finished tasks need not be done again. "
        "What is not given is taken from that run.",
    )
    triggered_by: Annotated[Line, Field(max_length=256)] | None = Field(None, description="Who or what asked for it.")
    when_busy: Literal["attach", "queue", "reject"] = Field(
        "attach",
        description="While another run is active: join that one, wait in the queue, or be refused (409).",
    )

    @model_validator(mode="after")
    def _names_something(self) -> "RunRequest":
        if self.pipeline is None and (self.resume is None or _UUID.fullmatch(self.resume)):
            raise ValueError("pipeline is required, unless resume names a run")
        return self

    @property
    def resumes_session(self) -> bool:
        """Whether `resume` is a session id and not a run's."""
        return bool(self.resume and _UUID.fullmatch(self.resume))


class StatusQuery(_Strict):
    """Which run."""

    run_id: str | None = Field(None, max_length=128, description="Without it: the active run, else the last one.")


class CancelQuery(_Strict):
    """Which run."""

    run_id: str | None = Field(None, max_length=128, description="Without it: the active run, if there is one.")


class HistoryQuery(BaseModel):
    """Which part of the history."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(20, ge=1, le=100, description="How many runs.")
    before: str | None = Field(
        None,
        max_length=128,
        description="A run id or an RFC 3339 time: only runs older than that.",
        json_schema_extra={
            "anyOf": [
                {"type": "string", "pattern": "^run-"},
                {"type": "string", "format": "date-time"},
                {"type": "null"},
            ]
        },
    )
    status: RunStatus | None = Field(None, description="Only runs of this status.")


class LogsQuery(BaseModel):
    """Which part of the log."""

    model_config = ConfigDict(extra="forbid")
    since: int | None = Field(None, ge=0, le=2**53, description="Only lines of events later than this id.")
    tail: int | None = Field(None, ge=0, le=10_000_000, description="Only that many lines, the newest.")


class EventsQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")
    since: int = Field(0, ge=0, le=2**53, description="Only events later than this id.")
    before: int | None = Field(
        None, ge=1, le=2**53, description="Only events earlier than this id, and of those the newest: to page back."
    )
    limit: int = Field(100, ge=1, le=500, description="How many events at the most.")


class TasksQuery(BaseModel):
    """Which tasks."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(1000, ge=1, le=10_000, description="How many tasks at the most, the newest.")


def parse_body(model: type[Model]) -> tuple[Model, bytes]:
    """The JSON body as that model, and its bytes. Raises BadRequest, UnsupportedMediaType or InvalidRequest."""
    if not request.is_json:
        raise UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    body = request.get_data()
    if len(body) >= MAX_BODY_BYTES:  # sent without a length, it is cut there
        raise RequestEntityTooLarge
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}") from error
    return _validated(model, value), body


def parse_query(model: type[Model]) -> Model:
    """The query as that model; a key that comes twice is an error. Raises InvalidRequest."""
    values: dict[str, Any] = {}
    for key, value in request.args.items(multi=True):
        if key in values:
            raise InvalidRequest([{"loc": [key], "msg": "is given more than once"}])
        values[key] = value
    return _validated(model, values)


def _validated(model: type[Model], value: Any) -> Model:
    if not isinstance(value, dict):
        raise InvalidRequest([{"loc": [], "msg": "must be a JSON object"}])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidRequest([{"loc": [*item["loc"]], "msg": _in_words(item)} for item in found]) from None


def _in_words(error: ErrorDetails) -> str:
    """What is wrong, without Python's own names for it."""
    match error["type"]:
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "too_long" | "string_too_long":
            return f"is longer than {error['ctx']['max_length']} characters"
        case "dict_type" | "model_type":
            return "must be a JSON object"
        case "string_type":
            return "must be text"
        case "int_parsing" | "int_type":
            return "must be a whole number"
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not known"
        case _:
            return re.sub("^Input should be ", "must be ", error["msg"].removeprefix("Value error, "))
