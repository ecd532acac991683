"""Which libraries on a machine a job would load, and why."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.memory_saver.elf_file import ASCEND_PRELOAD, ElfFile
from vimectl.env.memory_saver import known_builds
from vimectl.env.memory_saver.known_builds import KnownBuild
from vimectl.env.memory_saver.loading import HOOK_MODES
from vimectl.env.memory_saver.verify import all_good, verify_installed
from vimectl.recipes import environment
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.schema import Stack
from vimectl.util import toml
from vimectl.util.host import CommandResult, Host

SITE = "/usr/local/lib/python3.11/site-packages"
OTHER = "/usr/lib/python3/dist-packages"
TORCH = "torch_memory_saver_hook_mode_torch"
PRELOAD = "torch_memory_saver_hook_mode_preload"
ASCEND, CPU = load_stack("ascend-0.22"), load_stack("cpu-0.32")

# The loading rule in the source of the package's releases.
BY_NAME = 'candidates = [p for d in dirs for p in d.glob(f"{stem}.*.so")]'
BY_CUDA = 'pattern = f"{stem}_cu{major}.*.so"'


class Machine:
    """A machine with libraries in one or more directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment: dict[str, str] = {}
        (root / "usr/local/bin").mkdir(parents=True)
        (root / "usr/local/bin/python3.11").touch()

    def path(self, absolute: str) -> Path:
        return self.root / absolute[1:]

    def host(self) -> Host:
        def run(argv: Sequence[str], timeout: float) -> CommandResult:
            return CommandResult(0, "aarch64\n")

        return Host(self.root, self.environment, run)

    def package(self, site: str = SITE, loader: str | None = BY_NAME, **libraries: ElfFile) -> None:
        package = self.path(site) / "torch_memory_saver"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        if loader:
            (package / "utils.py").write_text(loader)
        for name, library in libraries.items():
            (package.parent / f"{name}.abi3.so").write_bytes(library.content())

    def torch(self, cuda: str) -> None:
        (self.path(SITE) / "torch").mkdir(parents=True, exist_ok=True)
        (self.path(SITE) / "torch" / "version.py").write_text(f"cuda: Optional[str] = {cuda}\n")

    def loads(self, wanted: Stack | None) -> dict[str, str]:
        """Return the reasons of the libraries that would be loaded, by path."""
        builds = verify_installed(self.host(), wanted)
        return {b.path: b.why for b in builds if b.loads}

    def good(self, wanted: Stack | None) -> bool:
        return all_good(verify_installed(self.host(), wanted), wanted)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the library of `ElfFile()` known-good for Ascend."""
    digest = hashlib.sha256(ElfFile().content()).hexdigest()
    good = KnownBuild(name="ours", verdict="known-good", backend="ascend", sha256=digest, note="written here")
    monkeypatch.setattr(known_builds, "_shipped", lambda: (good,))


BOTH = {TORCH: ElfFile(), PRELOAD: ElfFile(functions=ASCEND_PRELOAD)}


@pytest.mark.usefixtures("known")
def test_npu_loads_only_the_torch_mode_library(machine: Machine) -> None:
    machine.package(**BOTH)
    ((path, why),) = machine.loads(ASCEND).items()
    assert path == f"{SITE}/{TORCH}.abi3.so"
    assert why == f"Python imports {SITE}/torch_memory_saver, which loads {TORCH}.*.so"
    assert machine.good(ASCEND)
    builds = verify_installed(machine.host(), ASCEND)
    assert [(b.verdict, b.loads, b.hook_mode) for b in builds] == [
        ("known-good", True, "torch"),
        ("unknown", False, "preload"),
    ]


def test_cpu_loads_no_library(machine: Machine) -> None:
    machine.package(**BOTH)
    assert machine.loads(CPU) == {}
    assert machine.good(CPU)


def test_without_a_stack_the_environment_selects_the_hook_mode(machine: Machine) -> None:
    machine.package(**BOTH)
    assert len(machine.loads(None)) == 2
    machine.environment["TMS_HOOK_MODE"] = "preload"
    assert list(machine.loads(None)) == [f"{SITE}/{PRELOAD}.abi3.so"]


@pytest.mark.usefixtures("known")
def test_preloaded_library_counts_in_any_hook_mode(machine: Machine) -> None:
    machine.package(**BOTH)
    assert machine.good(ASCEND)
    for change in (
        lambda: machine.environment.update(LD_PRELOAD=f"/opt/other.so:{SITE}/{PRELOAD}.abi3.so"),
        lambda: (machine.root / "etc/ld.so.preload").write_text(f"{SITE}/{PRELOAD}.abi3.so\n"),
    ):
        (machine.root / "etc").mkdir(exist_ok=True)
        change()
        loads = machine.loads(ASCEND)
        assert set(loads) == {f"{SITE}/{TORCH}.abi3.so", f"{SITE}/{PRELOAD}.abi3.so"}
        assert "in any hook mode" in loads[f"{SITE}/{PRELOAD}.abi3.so"]
        assert not machine.good(ASCEND)
        machine.environment.clear()


def test_missing_preloaded_library_is_reported(machine: Machine) -> None:
    machine.environment["LD_PRELOAD"] = "/opt/torch_memory_saver_x.so"
    (build,) = verify_installed(machine.host(), ASCEND)
    assert (build.verdict, build.loads, build.note) == (
        "unknown",
        True,
        "cannot be read: absent",
    )


@pytest.mark.usefixtures("known")
def test_first_of_several_copies_is_the_one_imported(machine: Machine) -> None:
    machine.package(OTHER, **{TORCH: ElfFile(needed=("libcuda.so.1",))})
    machine.package(SITE, **BOTH)
    machine.environment["PYTHONPATH"] = OTHER
    assert list(machine.loads(ASCEND)) == [f"{OTHER}/{TORCH}.abi3.so"]
    assert not machine.good(ASCEND)
    hidden = [b for b in verify_installed(machine.host(), ASCEND) if SITE in b.path]
    assert {b.why for b in hidden} == {f"Python imports the package in {OTHER} first"}
    machine.environment["PYTHONPATH"] = SITE
    assert list(machine.loads(ASCEND)) == [f"{SITE}/{TORCH}.abi3.so"]
    assert machine.good(ASCEND)


def test_libraries_without_their_package_are_not_loaded(machine: Machine) -> None:
    machine.path(SITE).mkdir(parents=True)
    (machine.path(SITE) / f"{TORCH}.abi3.so").write_bytes(ElfFile().content())
    assert machine.loads(ASCEND) == {}
    assert not machine.good(ASCEND)


@pytest.mark.usefixtures("known")
def test_two_matching_files_load_neither(machine: Machine) -> None:
    machine.package(**BOTH)
    (machine.path(SITE) / f"{TORCH}.cpython-311.so").write_bytes(ElfFile().content())
    assert machine.loads(ASCEND) == {}
    assert not machine.good(ASCEND)
    whys = {b.why for b in verify_installed(machine.host(), ASCEND) if TORCH in b.path}
    assert [why.rpartition(", ")[2] for why in whys] == ["but fails because there are 2 of them"]


@pytest.mark.parametrize(
    ("cuda", "loaded"),
    [("'13.0'", ["cu13"]), ("'12.8'", ["cu12"]), ("None", ["cu12", "cu13"])],
)
def test_newer_releases_choose_by_the_cuda_of_torch(machine: Machine, cuda: str, loaded: list[str]) -> None:
    names = [TORCH, f"{TORCH}_cu12", f"{TORCH}_cu13"]
    machine.package(loader=BY_CUDA, **dict.fromkeys(names, ElfFile(needed=("libcuda.so.1",))))
    machine.torch(cuda)
    assert sorted(machine.loads(ASCEND)) == [f"{SITE}/{TORCH}_{build}.abi3.so" for build in loaded]


def test_oldest_release_preloads_its_only_library(machine: Machine) -> None:
    machine.package(loader=None, torch_memory_saver_cpp=ElfFile(needed=("libcuda.so.1",)))
    assert list(machine.loads(ASCEND)) == [f"{SITE}/torch_memory_saver_cpp.abi3.so"]


def test_unreadable_library_is_unknown(machine: Machine) -> None:
    machine.package(**BOTH)
    with (machine.path(SITE) / f"{TORCH}.abi3.so").open("wb") as huge:
        huge.truncate(1 << 40)
    (build,) = [b for b in verify_installed(machine.host(), ASCEND) if b.loads]
    assert (build.verdict, build.sha256) == ("unknown", "")
    assert "larger than" in build.note
    assert not machine.good(ASCEND)


@pytest.mark.usefixtures("known")
def test_links_are_followed_inside_the_root_only(machine: Machine, tmp_path: Path) -> None:
    """A library outside another root is not that machine's."""
    machine.package(**BOTH)
    library = machine.path(SITE) / f"{TORCH}.abi3.so"
    library.unlink()
    outside = tmp_path.parent / f"{tmp_path.name}-outside.so"
    outside.write_bytes(ElfFile().content())
    library.symlink_to(outside)
    (build,) = [b for b in verify_installed(machine.host(), ASCEND) if b.loads]
    assert (build.verdict, build.note) == (
        "unknown",
        f"cannot be read: a link to {outside}, which does not exist",
    )
    (machine.root / "opt").mkdir()
    (machine.root / "opt/x.so").write_bytes(ElfFile().content())
    library.unlink()
    library.symlink_to("/opt/x.so")
    assert machine.good(ASCEND)


def test_unreadable_directory_has_no_libraries(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.package(**BOTH)

    def listdir(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listdir)
    assert verify_installed(machine.host(), ASCEND) == []


def test_pipe_is_not_read(machine: Machine) -> None:
    machine.package()
    os.mkfifo(machine.path(SITE) / f"{TORCH}.abi3.so")
    (machine.root / "etc").mkdir()
    os.mkfifo(machine.root / "etc/ld.so.preload")
    (build,) = verify_installed(machine.host(), ASCEND)
    assert (build.verdict, build.loads) == ("unknown", True)
    assert "named pipe" in build.note


def test_hook_modes_are_those_that_a_run_sets() -> None:
    path = Path(environment.__file__).with_name("environment.toml")
    variables = toml.load(environment.VariableFile, path).variable
    modes = {v.device[0]: v.value for v in variables if v.name == "TMS_HOOK_MODE"}
    assert modes == HOOK_MODES
