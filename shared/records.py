"""State that is kept as JSON, and may have been kept by a newer version of the service."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any


def known(kind: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """What the dataclass has fields for; what a newer version has put into the state besides is left out."""
    return {name: state[name] for name in names(kind) if name in state}


@cache
def names(kind: type) -> tuple[str, ...]:
    """The names of a dataclass' fields."""
    return tuple(item.name for item in fields(kind))
