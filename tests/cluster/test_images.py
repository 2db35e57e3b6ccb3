"""The images' names tell their content: whatever the Dockerfile copies counts."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import images
from cluster.images import TARGETS, content_hash

ROOT = Path(__file__).parents[2]


def copied(*stages: str) -> Iterator[str]:
    """What these stages of the Dockerfile copy from the checkout; of all stages, if none is given."""
    for part in re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        if not stages or part.split()[2] in stages:
            for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", part, flags=re.MULTILINE):
                yield from line.split()[:-1]


def test_the_build_is_given_what_it_copies_and_no_more() -> None:
    """.dockerignore lets through the Dockerfile and what it copies."""
    folders = {name for name in images._inputs() if (ROOT / name).is_dir()}
    wanted = {name if name.split("/")[0] not in folders else name.split("/")[0] for name in copied()}
    assert set(images._inputs()) == {"Dockerfile", *wanted}


def test_the_image_of_nextflow_depends_on_its_own_files_alone() -> None:
    """A change of the service makes no new image of Nextflow, and a change of what is in that image does."""
    assert set(images._INPUTS_OF_NEXTFLOW) == {"Dockerfile", *copied("base", "java", "jars", "nextflow")}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which every input is one small file."""
    (tmp_path / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    for name in images._inputs():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).mkdir() if (ROOT / name).is_dir() else (tmp_path / name).write_text("")
    for name in images._INPUTS_OF_NEXTFLOW:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    return tmp_path


def test_a_changed_source_makes_another_service_and_the_same_nextflow(checkout: Path) -> None:
    """A file of a package that appears, changes or may be executed is another image; Python's cache is none."""
    before = {target: content_hash(target) for target in TARGETS}
    seen = {before["service"]}
    source = checkout / "web" / "app.py"
    for change in (source.touch, lambda: source.write_text("1"), lambda: source.chmod(0o755)):
        change()
        seen.add(content_hash("service"))
    assert len(seen) == 4
    (checkout / "web" / "__pycache__").mkdir()
    (checkout / "web" / "__pycache__" / "app.pyc").touch()
    assert content_hash("service") in seen
    assert content_hash("nextflow") == before["nextflow"]


def test_only_the_newest_archives_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each target the two that were wanted last."""
    monkeypatch.setattr(images, "cache_directory", lambda: tmp_path)
    for age, name in enumerate(("service-c", "service-b", "nextflow-a", "service-a")):
        folder = tmp_path / f"image-{name}"
        folder.mkdir()
        os.utime(folder, (1000 - age, 1000 - age))
    images._remove_old("service")
    assert {folder.name for folder in tmp_path.iterdir()} == {"image-service-c", "image-service-b", "image-nextflow-a"}
