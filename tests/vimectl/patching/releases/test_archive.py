from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from index_server import CONTENT, make_sdist, make_wheel

from vimectl.errors import BadInput, CheckFailed
from vimectl.patching import releases

PATHS = ["toy/worker.py", "toy/__init__.py", "toy/none.py"]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """The same release four ways."""
    found = {
        "wheel": tmp_path / "toy-1.0-py3-none-any.whl",
        "tar": tmp_path / "toy-1.0.tar.gz",
        "zip": tmp_path / "toy-1.0.zip",
        "folder": tmp_path / "folder",
    }
    found["wheel"].write_bytes(make_wheel())
    found["tar"].write_bytes(make_sdist("toy-1.0"))
    found["zip"].write_bytes(make_wheel({f"toy-1.0/{path}": data for path, data in CONTENT.items()}))
    with zipfile.ZipFile(found["wheel"]) as archive:
        archive.extractall(found["folder"])
    return found


@pytest.mark.parametrize("kind", ["wheel", "tar", "zip", "folder"])
def test_the_same_paths_have_the_same_content(places: dict[str, Path], kind: str) -> None:
    release = releases.at(places[kind])
    assert release.read(PATHS) == {path: CONTENT.get(path) for path in PATHS}
    assert set(release.names()) - {"link.py"} == set(CONTENT)
    assert release.version == (None if kind == "folder" else "1.0")


def test_a_symbolic_link_is_its_target(places: dict[str, Path]) -> None:
    (places["folder"] / "link.py").symlink_to("toy/worker.py")
    for kind in ("tar", "folder"):
        assert releases.at(places[kind]).read(["link.py"]) == {"link.py": b"toy/worker.py"}


@pytest.mark.parametrize("kind", ["wheel", "tar", "zip"])
def test_a_damaged_archive_is_told(places: dict[str, Path], kind: str) -> None:
    data = bytearray(places[kind].read_bytes())
    middle = data.index(b"a\nb\nc\n") if kind != "tar" else len(data) // 2
    data[middle : middle + 3] = b"\0\0\0"
    places[kind].write_bytes(data)
    with pytest.raises(CheckFailed, match="damaged"):
        releases.at(places[kind]).read(PATHS)


def test_what_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for name, message in [("text", "neither a wheel nor a source archive"), ("none", "no such file")]:
        with pytest.raises(BadInput, match=message):
            releases.at(tmp_path / name)


def test_a_tree_that_names_its_root_with_a_dot(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "toy-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("./toy-1.0/toy/a.py")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"a"))
    assert releases.at(tmp_path / "toy-1.0.tar.gz").read(["toy/a.py"]) == {"toy/a.py": b"a"}
