"""Keeps secrets out of answers, events and logs."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"passw|secret|token|credential|private[_-]?key|api[_-]?key|access[_-]?key|^auth(?!ors?$)|bearer", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")
# Names are cut to a length, so that no text, however made, takes longer than its length.
_QUERY = re.compile(r"(?<=[?&])([^=&?\s]{1,64})=([^&\s'\"`(),;\[\]{}<>]+)")


def without_url_secrets(text: str) -> str:
    """The same text without what is secret in its URLs: user and password, and what a query calls by such a name."""
    if "://" not in text:
        return text
    return _QUERY.sub(_hidden_value, _USERINFO.sub(HIDDEN, text))


def _hidden_value(found: re.Match[str]) -> str:
    secret = _SECRET_NAME.search(found[1]) or found[1].lower().endswith(("signature", "sig"))
    return f"{found[1]}={HIDDEN}" if secret else found[0]


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
