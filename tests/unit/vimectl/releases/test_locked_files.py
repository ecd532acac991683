"""Download the files of a lock from folders and servers on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError, VimeError

from harness.needs import mounted_disk
from harness.patches.hostile_index import MIB, Answer, HostileIndex, Request, attacking, listing
from harness.patches.index_server import Index
from harness.wheels import write_wheel
from vimectl.releases import download, pip_config
from vimectl.releases.locked_files import WheelTarget, download_locked, download_wheel
from vimectl.releases.pip_config import PipConfig
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.util.phase_progress import PhaseProgress, ReportPhase

ARM = WheelTarget("3.12", "aarch64", "2.35")
NO_ORIGINS: Mapping[str, Origin] = MappingProxyType({})
PURE = "pure-1.0-py3-none-any.whl"
DATA = Random(1).randbytes(MIB)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pin(name: str, *digests: str, version: str = "1.0") -> Pin:
    text = " ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in digests)])
    return Pin(name, version, frozenset(digests), text)


def fetch(
    pins: Iterable[Pin],
    folder: Path,
    target: WheelTarget | None = ARM,
    origins: Mapping[str, Origin] = NO_ORIGINS,
    report: ReportPhase = lambda now: None,
) -> list[str]:
    """Download and return the names of the files."""
    return [path.name for path in download_locked(list(pins), folder, origins, report, target)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def origin_of(index: str, wheel: Path) -> Origin:
    return Origin.model_validate(
        {
            "index": index,
            "note": "test",
            "files": [{"name": wheel.name, "sha256": sha256_file(wheel), "note": "the expected file"}],
            "marker": {"path": "gamma.py", "pattern": "x", "meaning": "test"},
        }
    )


@pytest.fixture
def links(tmp_path: Path, configure: Callable[..., None]) -> Path:
    """The only source of pip: a compiled package for several targets, and a universal one."""
    folder = tmp_path / "links"
    for tag in (
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_39_aarch64",  # needs a newer glibc
        "py3-none-any",  # fits, but a compiled one is preferred
    ):
        write_wheel(folder, "kernels", tag=tag)
    write_wheel(folder, "limited", tag="cp39-abi3-manylinux2014_aarch64")
    write_wheel(folder, "pure")
    configure(find_links=[str(folder)])
    return folder


def lock(links: Path) -> list[Pin]:
    """The pins of a lock that accepts every file in the folder."""
    return [
        pin(name, *(sha256_file(path) for path in links.glob(f"{name}-*")))
        for name in ("kernels", "limited", "pure")
    ]


def test_files_of_the_target_are_chosen(links: Path, tmp_path: Path) -> None:
    reports: list[PhaseProgress] = []
    chosen = ["kernels-1.0-cp312-cp312-manylinux_2_28_aarch64.whl"]
    chosen += ["limited-1.0-cp39-abi3-manylinux2014_aarch64.whl", PURE]
    assert fetch(lock(links), tmp_path / "wheels", report=reports.append) == chosen
    assert names(tmp_path / "wheels") == chosen
    size = sum(path.stat().st_size for path in (tmp_path / "wheels").iterdir())
    assert reports[-1] == PhaseProgress("downloading", 3, 3, bytes=size, total_bytes=size)


def test_later_build_of_a_wheel_is_chosen(links: Path, tmp_path: Path) -> None:
    later = write_wheel(links, "pure", "1.0-2", files={"pure.py": b"second build"})
    both = pin("pure", sha256_file(links / PURE), sha256_file(later))
    assert fetch([both], tmp_path / "wheels", None) == ["pure-1.0-2-py3-none-any.whl"]


def test_complete_folder_needs_no_source(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = lock(links)
    first = fetch(pins, tmp_path / "wheels")
    monkeypatch.setattr(pip_config, "read", lambda: pytest.fail("reads pip's configuration"))
    assert fetch(pins, tmp_path / "wheels") == first


def test_damaged_file_and_file_for_another_machine_are_replaced(links: Path, tmp_path: Path) -> None:
    folder, pins = tmp_path / "wheels", lock(links)
    fetch(pins, folder)
    expected = names(folder)
    (folder / expected[0]).rename(folder / "kernels-1.0-cp312-cp312-manylinux_2_28_x86_64.whl")
    (folder / PURE).write_bytes(b"partial")
    assert sorted(fetch(pins, folder)) == expected


def test_package_without_a_file_for_the_target_is_named(links: Path, tmp_path: Path) -> None:
    message = (
        r"no file of limited 1\.0 for Python 3\.12, x86_64, glibc 2\.35, expected sha256 [0-9a-f]{64}: "
        r"they offer limited-1\.0-cp39-abi3-manylinux2014_aarch64\.whl; nor of absent 1\.0"
    )
    with pytest.raises(MissingRequirement, match=message) as error:
        fetch(
            [*lock(links), pin("absent", "0" * 64)],
            tmp_path / "wheels",
            WheelTarget("3.12", "x86_64", "2.35"),
        )
    assert "find-links" in error.value.hint
    assert names(tmp_path / "wheels") == []  # before anything is downloaded


def test_newest_version_of_the_sources_is_named(links: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match=r"the newest that they offer is 1\.0"):
        fetch([pin("pure", "0" * 64, version="2.0")], tmp_path / "wheels")


def test_other_file_is_refused_with_both_digests(links: Path, tmp_path: Path) -> None:
    found = f"found {links / PURE} sha256 {sha256_file(links / PURE)}, expected sha256 {'0' * 64}"
    with pytest.raises(CheckFailed, match=found):
        fetch([pin("pure", "0" * 64)], tmp_path / "wheels")


@pytest.mark.parametrize("html", [False, True])
def test_files_of_an_index_are_downloaded_once(index: Index, tmp_path: Path, html: bool) -> None:
    index.html = html
    index.files = {f"toy{n}-1.0-py3-none-any.whl": DATA[:n] for n in range(1, 30)}
    index.files["toy1-0.9-py3-none-any.whl"] = b"older"
    pins = [pin(f"toy{n}", sha256(DATA[:n])) for n in range(1, 30)]
    assert fetch(pins, tmp_path / "wheels") == [f"toy{n}-1.0-py3-none-any.whl" for n in range(1, 30)]
    wanted = {f"/simple/toy{n}/" for n in range(1, 30)} | {
        f"/files/{name}" for name in names(tmp_path / "wheels")
    }
    assert sorted(index.requests) == sorted(wanted)
    for path in (tmp_path / "wheels").iterdir():
        assert path.read_bytes() == index.files[path.name]


def test_same_name_with_another_digest_does_not_hide_a_file(
    index: Index, tmp_path: Path, configure: Callable[..., None]
) -> None:
    repacked = write_wheel(tmp_path / "links", "pure", files={"pure.py": b"repacked"})
    configure(index_url=index.url, find_links=[str(repacked.parent)])
    index.files[PURE] = DATA
    fetch([pin("pure", sha256(DATA))], tmp_path / "wheels")
    assert (tmp_path / "wheels" / PURE).read_bytes() == DATA


def test_later_index_is_asked_if_an_earlier_one_fails(
    index: Index, other_index: Index, tmp_path: Path, configure: Callable[..., None]
) -> None:
    configure(index_url=other_index.url, extra_index_urls=[index.url])
    other_index.failures = [403]
    index.files[PURE] = DATA
    assert fetch([pin("pure", sha256(DATA))], tmp_path / "wheels") == [PURE]


@pytest.mark.parametrize(
    ("hashes", "message"),
    [
        ({}, f"found {PURE} sha256 {sha256(DATA)}, expected sha256 {'0' * 64}"),
        ({"sha256": "0" * 64}, f"{PURE}: found sha256 {sha256(DATA)}, expected {'0' * 64}"),
        # A stronger digest that is right does not make up for a wrong one.
        (
            {"sha256": "0" * 64, "sha512": hashlib.sha512(DATA).hexdigest()},
            f"{PURE}: found sha256 {sha256(DATA)}, expected {'0' * 64}",
        ),
    ],
)
def test_other_content_than_the_lock_accepts_is_refused(
    index: Index, tmp_path: Path, hashes: dict[str, str], message: str
) -> None:
    index.files[PURE] = DATA
    entry = {"filename": PURE, "url": f"/files/{PURE}", "hashes": hashes}
    index.page = json.dumps({"files": [entry]}).encode()
    with pytest.raises(CheckFailed, match=message):
        fetch([pin("pure", "0" * 64)], tmp_path / "wheels")
    assert names(tmp_path / "wheels") == []


def test_file_without_a_stated_digest_is_tried(index: Index, tmp_path: Path) -> None:
    index.stated = {PURE: ""}
    index.files[PURE] = DATA
    assert fetch([pin("pure", sha256(DATA))], tmp_path / "wheels") == [PURE]


def test_source_archive_is_for_a_pin_that_accepts_nothing_else(index: Index, tmp_path: Path) -> None:
    sdist, wheel = "toy-1.0.tar.gz", "toy-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    index.files = {sdist: DATA, wheel: b"another machine"}
    with pytest.raises(MissingRequirement, match=f"they offer {re.escape(sdist)}, {re.escape(wheel)}"):
        fetch([pin("toy", sha256(DATA), index.sha256(wheel))], tmp_path / "files")
    assert fetch([pin("toy", sha256(DATA))], tmp_path / "files") == [sdist]
    assert fetch([pin("toy", sha256(DATA))], tmp_path / "files") == [sdist]
    assert index.requests.count(f"/files/{sdist}") == 1


def test_download_resumes_within_a_file(index: Index, tmp_path: Path) -> None:
    index.files[PURE] = DATA
    index.cuts = [100_000, 0, 0, 0, 0]
    with pytest.raises(MissingRequirement, match=r"pure 1\.0: .* breaks off") as error:
        fetch([pin("pure", sha256(DATA))], tmp_path / "wheels")
    assert "resumes where it stopped" in error.value.hint
    assert names(tmp_path / "wheels") == [f"{PURE}.part"]
    fetch([pin("pure", sha256(DATA))], tmp_path / "wheels")
    assert f"/files/{PURE} bytes=9999" in index.requests[-1]
    assert (tmp_path / "wheels" / PURE).read_bytes() == DATA
    assert names(tmp_path / "wheels") == [PURE]


def test_interrupted_call_keeps_what_is_finished(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CONCURRENT_DOWNLOADS", "1")
    index.files = {f"toy{n}-1.0-py3-none-any.whl": DATA[:n] for n in range(1, 9)}
    pins = [pin(f"toy{n}", sha256(DATA[:n])) for n in range(1, 9)]
    finished: list[int] = []

    def interrupt(now: PhaseProgress) -> None:
        if now.phase == "downloading" and now.done:
            finished.append(now.done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(pins, tmp_path / "wheels", report=interrupt)
    complete = [name for name in names(tmp_path / "wheels") if not name.endswith(".part")]
    assert len(complete) >= finished[0]
    index.requests.clear()
    assert len(fetch(pins, tmp_path / "wheels")) == 8
    assert not [name for name in complete if f"/files/{name}" in index.requests]


def test_failure_ends_the_call(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CONCURRENT_DOWNLOADS", "1")
    index.files = {f"toy{n}-1.0-py3-none-any.whl": b"x" for n in range(9)}
    index.failures = [403]
    with pytest.raises(MissingRequirement, match=r"downloading toy0 1\.0: .* responded 403") as error:
        fetch([pin(f"toy{n}", sha256(b"x")) for n in range(9)], tmp_path / "wheels")
    assert "netrc" in error.value.hint
    assert index.requests == ["/simple/toy0/"]


def test_unreachable_index_is_not_reported_as_a_missing_package(
    index: Index, tmp_path: Path, configure: Callable[..., None]
) -> None:
    configure(index_url="http://127.0.0.1:1/simple")
    with pytest.raises(
        MissingRequirement, match=r"downloading pure 1\.0: .* cannot be reached: .*refused"
    ) as error:
        fetch([pin("pure", "0" * 64)], tmp_path / "wheels")
    assert "resumes where it stopped" in error.value.hint


def test_malformed_index_is_named(index: Index, tmp_path: Path) -> None:
    index.page = b"[]"
    with pytest.raises(UsageError, match=r"downloading pure 1\.0: .* not the response of a package index"):
        fetch([pin("pure", "0" * 64)], tmp_path / "wheels")


def test_origin_is_asked_for_its_package_only(index: Index, other_index: Index, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "meant", "gamma", "1.0+cpu")
    other_index.files = {wheel.name: wheel.read_bytes()}
    index.files = {PURE: DATA, "gamma-1.0-py3-none-any.whl": b"of the public version"}
    pins = [pin("gamma", sha256_file(wheel), version="1.0+cpu"), pin("pure", sha256(DATA))]
    assert fetch(pins, tmp_path / "wheels", None, {"gamma": origin_of(other_index.url, wheel)}) == [
        wheel.name,
        PURE,
    ]
    assert {request.split("/")[2] for request in other_index.requests} == {"gamma", wheel.name}


@pytest.mark.parametrize("offline", [False, True])
def test_unreachable_origin(
    links: Path, tmp_path: Path, configure: Callable[..., None], offline: bool
) -> None:
    meant, url = write_wheel(tmp_path / "meant", "gamma", "1.0+cpu"), "http://127.0.0.1:1/simple"
    write_wheel(links, "gamma")  # a public version does not replace a local one
    configure(find_links=[str(links)], no_index=offline)
    expected = f"expected {re.escape(meant.name)} sha256 {sha256_file(meant)}"
    message = (
        f"no file of gamma .*{expected}: the newest .* is 1.0"
        if offline
        else f"reached: Failed to .*{expected}"
    )
    pins = [pin("gamma", sha256_file(meant), version="1.0+cpu")]
    with pytest.raises(MissingRequirement, match=message) as error:
        fetch(pins, tmp_path / "wheels", None, {"gamma": origin_of(url, meant)})
    assert f"access to {url}, or `pip config set" in error.value.hint


def test_full_disk_is_reported_and_the_call_resumes(index: Index, tmp_path: Path) -> None:
    index.files[PURE] = DATA
    with mounted_disk(tmp_path / "disk", size="512k") as disk:
        with pytest.raises(MissingRequirement, match="no space left") as error:
            fetch([pin("pure", sha256(DATA))], disk / "wheels")
        assert "another disk" in error.value.hint
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert fetch([pin("pure", sha256(DATA))], disk / "wheels") == [PURE]
        assert re.search(r" bytes=[1-9]\d{4,}-", index.requests[-1])


def endless(request: Request) -> None:
    request.send(Content_Length=None)
    request.forever(b"x")


def slow(request: Request) -> None:
    request.send(Content_Length=1000)
    request.drip(bytes(1000))


@pytest.mark.parametrize(
    ("page", "file", "error", "message"),
    [
        (listing(size=None), endless, UsageError, f"sends more than the expected {4 * MIB} bytes"),
        (slow, endless, MissingRequirement, "too slow"),
        (listing(size=None), slow, MissingRequirement, "too slow"),
    ],
)
def test_server_without_end_is_given_up(
    page: Answer,
    file: Answer,
    error: type[VimeError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "MAX_UNSTATED_BYTES", 4 * MIB)
    monkeypatch.setattr("vimectl.releases.allowance.WAIT_SECONDS", 1.0)
    monkeypatch.setenv("NO_PROXY", "*")
    toy = b"the wheel"
    with attacking(HostileIndex(toy, page, file)) as index:
        monkeypatch.setattr(pip_config, "read", lambda: PipConfig(index_url=index.url, timeout=1.0))
        with pytest.raises(error, match=rf"downloading toy 1\.0: .*{message}"):
            fetch([pin("toy", sha256(toy))], tmp_path / "wheels")


def fetch_one(folder: Path, digest: str = sha256(DATA)) -> Path:
    return download_wheel("pure", "1.0", digest, folder, lambda done, total: None)


def test_single_wheel_is_downloaded_once(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "single" / "pure"
    index.files[PURE] = DATA
    folder.mkdir(parents=True)
    (folder / "older-0.9-py3-none-any.whl.part").touch()
    seen: list[tuple[int, int]] = []
    found = download_wheel(
        "pure", "1.0", sha256(DATA), folder, lambda done, total: seen.append((done, total))
    )
    assert found.read_bytes() == DATA
    assert seen[-1] == (MIB, MIB)
    assert names(folder) == [PURE]
    index.files.clear()  # no source has it any more
    assert fetch_one(folder) == found
    assert names(folder.parent) == ["pure"]


def test_single_wheel_with_another_digest_is_refused(links: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=rf"found .*{PURE} sha256 [0-9a-f]{{64}}, expected sha256 0000"):
        fetch_one(tmp_path / "single", "0" * 64)
    assert names(tmp_path / "single") == []


def test_cache_directory_that_cannot_be_created(links: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingRequirement, match="cannot be created: Not a directory"):
        fetch_one(tmp_path / "file" / "cache")


def test_interpreter_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    with pytest.raises(MissingRequirement, match="has no pip"):
        fetch_one(tmp_path / "single")
