"""The catalog: pipelines that can be started by name, from `test_workflows.yaml` in PIPELINES_DIR."""

from pathlib import Path
from typing import Any

import yaml

CATALOG_FILE = "test_workflows.yaml"


def read_catalog(pipelines_dir: Path) -> list[dict[str, Any]]:
    """The workflows of the catalog; none when there is no such file or it cannot be read as one."""
    try:
        content = yaml.safe_load((pipelines_dir / CATALOG_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    workflows = content.get("workflows") if isinstance(content, dict) else None
    if not isinstance(workflows, list):
        return []
    return [item for item in workflows if isinstance(item, dict) and isinstance(item.get("pipeline"), str)]
