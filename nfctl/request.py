"""What a person types on the command line, as the request that the API takes."""

import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import yaml

from nfctl.client import Client


def named(pipeline: str, client: Client) -> str:
    """The pipeline as the service can find it: what lies on this machine by its absolute path. Raises BadParameter."""
    if not pipeline:
        raise click.BadParameter("PIPELINE is empty.")
    path = Path(os.path.expanduser(pipeline))  # noqa: PTH111 - unlike Path's, it takes a user that there is not
    if path.exists():
        return _without_dots(path)
    looks_local = pipeline.startswith(("/", "./", "../", "~"))
    # On a cluster a path is one of the work claim's, which this machine need not have.
    if looks_local and _is_here(client.url) and client.call("GET", "/about")["runner"] == "local":
        raise click.BadParameter(f"{path.absolute()} does not exist.")
    if "/" not in pipeline and pipeline not in (names := [row["pipeline"] for row in workflows(client)]):
        there_are = f" (there are {', '.join(names)})" if names else ""
        near = "".join(f" Did you mean {name}?" for name in get_close_matches(pipeline, names, 1))
        click.echo(
            f"No example is called {pipeline}{there_are}; Nextflow looks for nextflow-io/{pipeline}.{near}", err=True
        )
    return pipeline


def _without_dots(path: Path) -> str:
    """Absolute. What stands before a `..` is resolved, for it may be a link; later ones stay as they are called."""
    parts = path.absolute().parts
    after = max((number for number, part in enumerate(parts, start=1) if part == ".."), default=0)
    return str(Path(*parts[:after]).resolve().joinpath(*parts[after:])) if after else str(path.absolute())


def workflows(client: Client) -> list[dict[str, Any]]:
    """The examples that can be run by name."""
    found: list[dict[str, Any]] = client.call("GET", "/catalog")["workflows"]
    return found


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


class _YamlLoader(yaml.SafeLoader):
    """YAML as JSON knows it: a date stays the text that it is."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def parameters(params: tuple[str, ...], params_file: Path | None) -> dict[str, Any]:
    """The parameters of a file, JSON or YAML, and over them those that were given as KEY=VALUE. Raises BadParameter."""
    values: dict[str, Any] = {}
    if params_file is not None:
        try:
            text = params_file.read_text(encoding="utf-8")
            if params_file.suffix == ".json":
                loaded = json.loads(text, parse_constant=_no_constant)
            else:
                loaded = yaml.load(text, _YamlLoader)  # noqa: S506 - a SafeLoader
            json.dumps(loaded, allow_nan=False)
        except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
            raise click.BadParameter(f"{params_file} cannot be sent as JSON: {error}") from error
        if not isinstance(loaded, dict):
            raise click.BadParameter(f"{params_file} must hold an object of parameters.")
        values |= loaded
    for param in params:
        key, equals, text = param.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{param!r} is not KEY=VALUE.")
        try:
            values[key] = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            values[key] = text
    return values
