"""The files that a release publishes, built as the release workflow builds them, and the changelog."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import import_module
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from packaging.version import Version
from uv import find_uv_bin

from harness import REPOSITORY
from harness.checkout import copy_checkout
from vimectl import __version__
from vimectl.util.toml import read_toml

PROGRAMS = Path(sys.executable).parent
PYPROJECT = REPOSITORY / "pyproject.toml"
URLS = read_toml(PYPROJECT)["project"]["urls"]
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
# Quick tests of different parts.
SELF_TEST = (
    "vimectl/patches/test_series.py",
    "vimectl/patches/test_state.py",
    "vimectl/stacks/test_catalog.py",
    "vimectl/util/test_directory_lock.py",
    "vime_runtime/spec/test_device_layout.py",
)


@pytest.fixture(scope="module")
def files_of_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the checkout that git does not ignore, and nothing else."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def built(files_of_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the sdist, and the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    arguments = ["--no-build-isolation", f"--python={sys.executable}", f"--out-dir={folder}"]
    succeed(find_uv_bin(), "build", "--offline", *arguments, cwd=files_of_checkout)
    return folder


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    return built / f"vimectl-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"vimectl-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"vimectl-{__version__}.dist-info/METADATA").decode()
    return Parser().parsestr(text)


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"vimectl-{__version__}"


def succeed(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_twine_accepts_both_files(sdist: Path, wheel: Path) -> None:
    printed = succeed(PROGRAMS / "twine", "--no-color", "check", "--strict", sdist, wheel, cwd=REPOSITORY)
    assert printed.count("PASSED") == 2


def test_wheel_has_the_expected_contents(wheel: Path) -> None:
    assert succeed(PROGRAMS / "check-wheel-contents", wheel, cwd=REPOSITORY).endswith("OK\n")


def test_pyroma_rates_the_sdist_10_of_10(sdist: Path) -> None:
    assert "Final rating: 10/10" in succeed(PROGRAMS / "pyroma", sdist, cwd=REPOSITORY)


def test_pyproject_is_valid() -> None:
    succeed(PROGRAMS / "validate-pyproject", PYPROJECT, cwd=REPOSITORY)


def test_no_requirement_is_a_url(metadata: Message) -> None:
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert requirements
    assert [str(requirement) for requirement in requirements if requirement.url] == []


def test_page_on_the_index_has_only_absolute_links(metadata: Message) -> None:
    tokens = MarkdownIt().parse(metadata.get_payload())
    inline = [child for token in tokens for child in token.children or []]
    links = [token.attrs["href"] for token in inline if token.type == "link_open"]
    images = [token.attrs["src"] for token in inline if token.type == "image"]
    assert links
    assert images
    assert all(link.startswith(("https://", "#")) for link in links)
    # Those into the repository show this version.
    for kind, targets in (("blob", links), ("raw", images)):
        assert any(target.startswith(f"{URLS['Source']}/{kind}/v{__version__}/") for target in targets)
    assert not [token.content for token in tokens + inline if token.type.startswith("html")]


def test_both_packages_have_their_types_and_one_version(wheel: Path, metadata: Message) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"vimectl/py.typed", "vime_runtime/py.typed"} <= set(names)
    assert metadata["Version"] == __version__
    assert not hasattr(import_module("vime_runtime"), "__version__")


def test_sdist_has_every_file_of_the_checkout(files_of_checkout: Path, unpacked: Path) -> None:
    def files(folder: Path) -> set[Path]:
        found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        return {path for path in found if path.parent.name != "__pycache__"}  # of the hook that a build runs

    assert files(unpacked) == files(files_of_checkout) | {Path("PKG-INFO")}


def test_sdist_tests_itself(unpacked: Path) -> None:
    code = """
import sys, pytest
code = pytest.main(sys.argv[1:])
import vimectl, vime_runtime, harness
print(*(module.__file__ for module in (vimectl, vime_runtime, harness)), sep="\\n")
sys.exit(code)
"""
    tests = [f"tests/unit/{name}" for name in SELF_TEST]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not exhaustive", *tests]
    paths = f"{unpacked}{os.pathsep}{unpacked / 'runtime'}"
    printed = succeed(sys.executable, "-c", code, *options, cwd=unpacked, PYTHONPATH=paths)
    modules = ("vimectl", "runtime/vime_runtime", "tests/harness")
    assert printed.splitlines()[-3:] == [str(unpacked / name / "__init__.py") for name in modules]
    assert " passed" in printed


def vimectl_without_cyclonedx(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.modules['cyclonedx'] = None; from vimectl.cli import main; main()"
    command = [sys.executable, "-c", code, "image", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_build_without_the_extra_names_it_before_it_downloads(tmp_path: Path) -> None:
    refused = vimectl_without_cyclonedx(tmp_path, "build", "--stack", "ascend-0.22")
    assert refused.returncode == 3
    assert 'pip install "vimectl[image]"' in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "build --dry-run", "run-args"])
def test_other_commands_for_images_need_no_extra(command: str, tmp_path: Path) -> None:
    done = vimectl_without_cyclonedx(tmp_path, *command.split(), "--stack", "cpu-0.32")
    assert done.returncode == 0, done.stderr


def test_changelog_has_the_form_of_keep_a_changelog() -> None:
    lines = CHANGELOG.splitlines()
    assert lines[0] == "# Changelog"
    assert {line.removeprefix("### ") for line in lines if line.startswith("### ")} <= SECTIONS
    titles = [line for line in lines if line.startswith("## ")]
    assert titles[0] == "## [Unreleased]"
    releases = [re.fullmatch(r"## \[(\S+)\] - (\d{4}-\d\d-\d\d)", title) for title in titles[1:]]
    assert all(releases), titles
    versions, dates = zip(*(release.groups() for release in releases), strict=True)
    assert list(versions) == sorted(versions, key=Version, reverse=True)
    assert list(dates) == sorted(dates, reverse=True)
    assert versions[0] == __version__, "the version of the package has no section in CHANGELOG.md"


def test_changelog_links_every_version_to_its_changes() -> None:
    found = dict(re.findall(r"^\[(\S+)\]: (\S+)$", CHANGELOG, flags=re.MULTILINE))
    versions = re.findall(r"^## \[(\d\S*)\]", CHANGELOG, flags=re.MULTILINE)
    source = URLS["Source"]
    expected = {"unreleased": f"{source}/compare/v{versions[0]}...HEAD"}
    for new, old in zip(versions, [*versions[1:], None], strict=True):
        expected[new] = f"{source}/compare/v{old}...v{new}" if old else f"{source}/releases/tag/v{new}"
    assert found == expected
