"""What the API takes: each bad request is told where and why."""

import re
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from web.schemas import EventsQuery, HistoryQuery, InvalidRequest, LogsQuery, RunRequest, StatusQuery, parse_body
from web.schemas import parse_query as query_of

UUID = "0f4d2c6e-1111-4222-8333-444455556666"


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"x": value}
    return {"x": value}


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "pipeline is required"),
    ({"resume": UUID}, "pipeline is required"),
    ({"pipeline": ""}, "at least 1"),
    ({"pipeline": 7}, "string"),
    ({"pipeline": ["hello"]}, "string"),
    ({"pipeline": "x" * 1025}, "at most 1024"),
    ({"pipeline": "hello\n-with-docker"}, "one line"),
    ({"pipeline": "hello\0"}, "one line"),
    ({"pipeline": " hello"}, "space"),
    ({"pipeline": "hello", "revision": "a\tb"}, "one line"),
    ({"pipeline": "hello", "revision": "x" * 257}, "at most 256"),
    ({"pipeline": "hello", "profile": ""}, "at least 1"),
    ({"pipeline": "hello", "parameters": []}, "dictionary"),
    ({"pipeline": "hello", "parameters": {"": 1}}, "not empty"),
    ({"pipeline": "hello", "parameters": {"a\nb": 1}}, "one line"),
    ({"pipeline": "hello", "parameters": nested(40)}, "nested"),
    ({"pipeline": "hello", "workdir": "relative"}, "absolute path"),
    ({"pipeline": "hello", "workdir": "/a\n"}, "one line"),
    ({"pipeline": "hello", "config": 7}, "string"),
    ({"pipeline": "hello", "config": "x" * 65_537}, "at most 65536"),
    ({"pipeline": "hello", "triggered_by": "a\u2028b"}, "one line"),
    ({"pipeline": "hello", "when_busy": "wait"}, "'attach', 'queue' or 'reject'"),
    ({"pipeline": "hello", "paramters": {}}, "not permitted"),
]


@pytest.mark.parametrize(("body", "why"), BAD)
def test_a_bad_request_is_not_taken(body: dict[str, Any], why: str) -> None:
    """Each is refused with words that say what is wrong with it."""
    with pytest.raises(ValidationError, match=why):
        RunRequest.model_validate(body)


@pytest.mark.parametrize(
    "body",
    [
        {"pipeline": "hello"},
        {"pipeline": "nextflow-io/hello", "revision": "v1.0", "profile": "test,docker"},
        {
            "pipeline": "hello",
            "parameters": {"n": 3, "s": "x", "b": True, "l": [1, "2"], "d": nested(20), "ž 🐎": None},
        },
        {"pipeline": "hello", "workdir": "s3://bucket/work"},
        {"pipeline": "hello", "resume": UUID},
        {"resume": "run-20260131-120000-0a1b2c3d"},
        {"pipeline": "hello", "config": "process {\n\tcpus = 1\n}\n", "triggered_by": "žluť <a@b>"},
    ],
)
def test_a_good_request_is_taken_as_it_is(body: dict[str, Any]) -> None:
    """What is good keeps its values and their types."""
    made = RunRequest.model_validate(body).model_dump(exclude_unset=True)
    assert made == body


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (HistoryQuery, "limit=0"),
        (HistoryQuery, "limit=101"),
        (HistoryQuery, "limit=ten"),
        (HistoryQuery, "limit=1&limit=2"),
        (HistoryQuery, "status=done"),
        (HistoryQuery, "page=2"),
        (HistoryQuery, f"before={'x' * 129}"),
        (LogsQuery, "tail=-1"),
        (LogsQuery, "since=-1"),
        (LogsQuery, f"since={2**60}"),
        (EventsQuery, "since=x"),
        (StatusQuery, f"run_id={'x' * 129}"),
        (StatusQuery, "id=1"),
    ],
)
def test_a_bad_query_is_told_with_its_place(model: type[Any], query: str) -> None:
    """Each names the key that is wrong, and says in words of ours what is wrong with it."""
    with Flask(__name__).test_request_context(f"/?{query}"), pytest.raises(InvalidRequest) as caught:
        query_of(model)
    (error,) = caught.value.errors
    assert error["loc"] == [query.partition("=")[0]]
    assert re.match("(is|must be) ", error["msg"])
    assert "nput" not in error["msg"]


@pytest.mark.parametrize(
    ("data", "content_type", "raised"),
    [
        (b"{}", "text/plain", UnsupportedMediaType),
        (b"{}", None, UnsupportedMediaType),
        (b"", "application/json", BadRequest),
        (b"{", "application/json", BadRequest),
        (b"\xff", "application/json", BadRequest),
        (b'{"pipeline": NaN}', "application/json", BadRequest),
        (b'{"pipeline": "\\ud800"}', "application/json", BadRequest),
        (b"[" * 100_000, "application/json", BadRequest),
        (b"[]", "application/json", InvalidRequest),
        (b"null", "application/json", InvalidRequest),
        (b'"hello"', "application/json", InvalidRequest),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, content_type: str | None, raised: type[Exception]) -> None:
    """Not said to be JSON, not JSON, and JSON that is no object are three different mistakes."""
    app = Flask(__name__)
    with app.test_request_context("/", method="POST", data=data, content_type=content_type), pytest.raises(raised):
        parse_body(RunRequest)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
body_fields = st.sampled_from([*RunRequest.model_fields]) | st.text()


@given(st.dictionaries(body_fields, json_values, max_size=5))
def test_any_object_is_taken_or_refused(body: dict[str, Any]) -> None:
    """There is no JSON object that breaks the check."""
    with suppress(ValidationError):
        made = RunRequest.model_validate(body)
        assert made.pipeline or made.resume
