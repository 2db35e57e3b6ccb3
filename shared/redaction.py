"""Keeps secrets out of answers, events and logs."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"passw|secret|token|credential|private[_-]?key|api[_-]?key|access[_-]?key|^auth(?!ors?$)|bearer", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")
_QUERY = re.compile(
    r"(?<=[?&])([\w.-]*(?:passw|secret|token|credential|api[_-]?key|access[_-]?key|signature)[\w.-]*)=[^&\s'\"`]+",
    re.IGNORECASE,
)


def without_url_secrets(text: str) -> str:
    """The same text without what is secret in its URLs: user and password, and what a query calls by such a name."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1={HIDDEN}", _USERINFO.sub(HIDDEN, text))


def parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters, nested ones too, with the values of secret-looking names hidden."""
    return {
        name: HIDDEN if _SECRET_NAME.search(name) and _may_be_secret(value) else _value(value)
        for name, value in values.items()
    }


def _may_be_secret(value: Any) -> bool:
    return not (value is None or value == "" or isinstance(value, bool))


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return parameters(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    return without_url_secrets(value) if isinstance(value, str) else value
