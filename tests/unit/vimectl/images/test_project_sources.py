"""The sources that a project adds to an image."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.images.user_stack import UserStack
from vimectl.images import vendor
from vimectl.images.plan import STACK_FILE, ImagePlan, make_plan
from vimectl.images.source_folder import check_for_plan
from vimectl.patches import series
from vimectl.stacks.catalog import lineage, load_stack, stack_file
from vimectl.util.resources import data_dir

PROJECT = """
extends = "{extends}"
[patches]
vllm = ["fixes"]
megatron-core = []
[targets]
vllm = "vllm"
"""


def project(directory: Path, extends: str) -> Path:
    """Make a project that replaces the patches of vLLM, with a series of the same files as ours."""
    shutil.copytree(data_dir("patches") / "vllm/0.32.0", directory / "fixes")
    (directory / "fixes/.hidden").touch()
    file = directory / "vimectl.toml"
    file.write_text(PROJECT.format(extends=extends))
    return file


def unpack(made: ImagePlan, directory: Path) -> Path:
    """Put the stack file and the series where an image has them."""
    for source in made.sources:
        if source.content is None:
            continue
        if source.kind == "patches":
            with tarfile.open(fileobj=io.BytesIO(source.content)) as archive:
                archive.extractall(directory / "patches", filter="data")
        else:
            (directory / source.path).write_bytes(source.content)
    return directory / STACK_FILE


def test_image_has_the_whole_stack_and_the_series(tmp_path: Path) -> None:
    made = make_plan(str(project(tmp_path, "cpu-0.32")))
    (tmp_path / "image").mkdir()
    file = unpack(made, tmp_path / "image")
    outside, inside = made.stack, load_stack(str(file))
    assert inside.patches == {"vllm": [str(tmp_path / "image/patches/vllm-1")]}
    assert series.read(Path(inside.patches["vllm"][0])).digest == series.load("vllm", "0.32.0").digest
    assert not (tmp_path / "image/patches/vllm-1/.hidden").exists()
    assert (inside.targets, lineage(inside.argument)) == ({}, [str(file), "cpu-0.32"])
    for table in ("stack", "packages", "provided_by", "origin", "libraries", "image", "omitted"):
        assert getattr(inside, table) == getattr(outside, table)
    assert make_plan(made.stack.argument).sources == made.sources


def test_shipped_stack_is_copied_as_it_is() -> None:
    (source,) = [one for one in make_plan("cpu-0.32").sources if one.kind == "stack"]
    assert source.content == stack_file("cpu-0.32").read_bytes()


def test_folder_has_the_archives_of_the_project(own: UserStack, tool: Path, tmp_path: Path) -> None:
    made = make_plan(str(project(tmp_path / "project", str(own.file))))
    folder = tmp_path / "offline"
    collected = vendor.collect(made, folder, lambda now: None)
    check_for_plan(folder, made, tool)
    (entry,) = [entry for entry in collected.sources if entry.kind == "patches"]
    assert (entry.path, entry.series) == ("patches/vllm-1.tar", "")
    assert (folder / entry.path).is_file()


def test_broken_series_is_refused_before_anything_is_collected(tmp_path: Path) -> None:
    file = project(tmp_path, "cpu-0.32")
    (tmp_path / "fixes/series").write_text("none.patch\n")
    with pytest.raises(UsageError, match=r"none\.patch"):
        make_plan(str(file))
