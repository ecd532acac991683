"""The fixes of the doctor's checks of packages, pasted into bash: real pip and uv, throw-away environments.

The packages are small wheels in a folder, found without an index. The last tests use released packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from harness import git
from harness.memory_saver.elf_file import ElfFile
from harness.needs import unavailable
from harness.wheels import write_wheel
from vimectl.doctor.check import CheckResult
from vimectl.doctor.runner import DoctorReport, run_checks
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host

pytestmark = pytest.mark.slow

# A build backend without requirements: it copies the module of the checkout into a wheel.
BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/fixpin-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("fixpin/__init__.py", "")
        info = "fixpin-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: fixpin\\nVersion: 1.0\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "fixpin/__init__.py,,\\n")
    return "fixpin-1.0-py3-none-any.whl"
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@dataclass
class Environment:
    """A virtual environment, its package manager, and the folder in which that finds wheels."""

    python: Path
    manager: str
    wheels: Path
    work: Path
    online: bool = False

    @property
    def site(self) -> Path:
        (found,) = self.python.parents[1].glob("lib/python3*/site-packages")
        return found

    @property
    def variables(self) -> dict[str, str]:
        own = {"HOME": str(self.work), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        if self.online:
            return dict(os.environ) | own | {"UV_CACHE_DIR": str(self.work / "cache")}
        found = {"PIP_FIND_LINKS": str(self.wheels), "UV_FIND_LINKS": str(self.wheels)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        return kept | own | found | {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}

    def wheel(self, name: str, version: str = "1.0", requires: str = "", **files: bytes) -> None:
        """Write a wheel whose module is called like it; ``files`` are more files of the module."""
        module = {f"{name}/__init__.py": f'__version__ = "{version}"\n'.encode()}
        module |= {f"{name}/{file.replace('__', '.')}": content for file, content in files.items()}
        write_wheel(self.wheels, name, version, module, requires=[requires] if requires else [])

    def install(self, *requirements: str) -> None:
        """Install with the manager, without dependencies."""
        command = [str(self.python), "-m", "pip", "install", "--no-deps"]
        if self.manager == "uv":
            command = ["uv", "pip", "install", "--no-deps", "--python", str(self.python)]
        self.run([*command, *requirements])

    def run(self, command: list[str]) -> None:
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def examine(self, tables: Mapping[str, Any]) -> DoctorReport:
        """Return what the doctor says of the packages, for a stack with these tables."""
        table = {"name": "mine", "description": "a test", "device": "cpu"}
        notes = dict.fromkeys(["packages", "python", "machines", "commits", "ranges"], "a test")
        stack = {"stack": table | {"python": ">=3.9", "machines": ["x86_64", "aarch64"]}, "notes": notes}
        file = self.work / "mine.toml"
        file.write_text(tomlkit.dumps({"packages": {}, **stack, **tables}))
        host = Host(environment=self.variables, given_python=str(self.python))
        return run_checks(host, load_stack(str(file)), only=["packages"])

    def repairs(self, tables: Mapping[str, Any], check: str) -> CheckResult:
        """Check that the fix of ``check``, the first of the report, leaves nothing to fix."""
        first = self.examine(tables).first
        assert first is not None
        assert first.id == check, first
        assert ("uv pip" in first.fix) == (self.manager == "uv")
        self.run(["bash", "-c", first.fix])
        report = self.examine(tables)
        assert report.first is None, report.first
        return first


Make = Callable[[str], Environment]


def make_environment(folder: Path, manager: str) -> Environment:
    command = (
        ["uv", "venv", "--python", sys.executable] if manager == "uv" else [sys.executable, "-m", "venv"]
    )
    environment = Environment(folder / "env/bin/python", manager, folder / "wheels", folder)
    environment.run([*command, str(folder / "env")])
    return environment


@pytest.fixture(scope="module", params=["pip", "uv"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One for all tests: each uses other packages."""
    return make_environment(tmp_path_factory.mktemp(request.param), request.param)


def test_one_command_installs_all_that_differs(environment: Environment) -> None:
    for name in ("fixone", "fixtwo", "fixthree"):
        environment.wheel(name, "1.0")
        environment.wheel(name, "2.0", requires="fixlib<2" if name == "fixthree" else "")
    environment.wheel("fixlib", "1.5")
    environment.wheel("fixlib", "2.5")
    environment.install("fixone==1.0", "fixtwo==1.0", "fixthree==2.0", "fixlib==2.5")
    tables = {"packages": {"fixone": "2.0", "fixthree": "2.0"}, "ranges": {"fixtwo": ">=2"}}
    report = environment.examine(tables)
    assert {result.id for result in report.failures} == {"packages.fixone", "packages.requires"}
    assert {result.fix for result in report.results if result.status in ("warn", "fail")} == {
        environment.repairs(tables, "packages.fixone").fix
    }


def test_torch_that_another_package_brought_is_replaced_with_its_companions(environment: Environment) -> None:
    for torch, vision in (("2.10.0+cpu", "0.25.0+cpu"), ("2.11.0", "0.26.0")):
        environment.wheel("torch", torch)
        environment.wheel("torchvision", vision, requires=f"torch=={torch.partition('+')[0]}")
    environment.install("torch==2.11.0", "torchvision==0.26.0")
    found = environment.repairs({"packages": {"torch": "2.10.0+cpu"}}, "packages.torch")
    assert found.fix.endswith("torch==2.10.0+cpu torchvision==0.25.0")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in found.fix


@pytest.mark.parametrize("file", ["METADATA", "RECORD"])
def test_interrupted_installation_is_written_over(environment: Environment, file: str) -> None:
    name = f"fixcut{file.lower()}"
    environment.wheel(name)
    environment.install(name)
    (environment.site / f"{name}-1.0.dist-info" / file).unlink()
    environment.repairs({"packages": {name: "1.0"}}, "packages.interrupted")


def test_interrupted_removal_is_installed_again(environment: Environment) -> None:
    environment.wheel("fixhidden")
    environment.install("fixhidden")
    info = environment.site / "fixhidden-1.0.dist-info"
    info.rename(info.with_name("~ixhidden-1.0.dist-info"))
    environment.repairs({"packages": {"fixhidden": "1.0"}}, "packages.interrupted")


def test_second_metadata_directory_is_removed(environment: Environment) -> None:
    for version in ("1.0", "2.0"):
        environment.wheel("fixtwice", version)
    environment.install("fixtwice==1.0")
    old = environment.site / "fixtwice-1.0.dist-info"
    shutil.copytree(old, environment.work / "old")
    environment.install("fixtwice==2.0")
    shutil.copytree(environment.work / "old", old)
    environment.repairs({"packages": {"fixtwice": "2.0"}}, "packages.duplicates")
    assert [path.name for path in environment.site.glob("fixtwice*.dist-info")] == ["fixtwice-2.0.dist-info"]


def test_lost_module_is_installed_again(environment: Environment) -> None:
    environment.wheel("fixlost", part__py=b"")
    environment.install("fixlost")
    (environment.site / "fixlost/part.py").unlink()
    environment.repairs({"packages": {"fixlost": "1.0"}}, "packages.intact")
    assert (environment.site / "fixlost/part.py").exists()


def test_extension_that_is_no_library_is_installed_again(environment: Environment) -> None:
    library = ElfFile(machine=os.uname().machine).content()
    environment.wheel("fixbuilt", _C__abi3__so=library)
    environment.install("fixbuilt")
    (environment.site / "fixbuilt/_C.abi3.so").write_text("version https://git-lfs.github.com/spec/v1")
    environment.repairs({"packages": {"fixbuilt": "1.0"}}, "packages.extensions")
    assert (environment.site / "fixbuilt/_C.abi3.so").read_bytes() == library


def test_editable_install_without_its_checkout_is_replaced(environment: Environment) -> None:
    environment.wheel("fixmoved")
    environment.install("fixmoved")
    shutil.rmtree(environment.site / "fixmoved")
    gone = '{"url": "file:///src/fixmoved", "dir_info": {"editable": true}}'
    (environment.site / "fixmoved-1.0.dist-info/direct_url.json").write_text(gone)
    (environment.site / "__editable__.fixmoved-1.0.pth").write_text("/src/fixmoved\n")
    record = environment.site / "fixmoved-1.0.dist-info/RECORD"
    record.write_text(
        "__editable__.fixmoved-1.0.pth,,\n"
        + "".join(f"fixmoved-1.0.dist-info/{path.name},,\n" for path in sorted(record.parent.iterdir()))
    )
    environment.repairs({"packages": {"fixmoved": "1.0"}}, "packages.editable")
    assert (environment.site / "fixmoved/__init__.py").exists()


def test_pinned_commit_is_installed_from_its_source(environment: Environment) -> None:
    tree = environment.work / "tree"
    (tree / "fixpin").mkdir(parents=True)
    (tree / "fixpin/__init__.py").touch()
    (tree / "backend.py").write_text(BACKEND)
    (tree / "pyproject.toml").write_text(PROJECT)
    commit = git.commit(tree)
    environment.wheel("fixpin", "0.9")
    environment.wheel("fixbase")
    environment.install("fixpin==0.9", "fixbase")
    # pip 23 refuses a URL without a host.
    pin = {"url": f"file://localhost{tree}", "commit": commit, "distribution": "fixpin", "version": "1.0"}
    tables = {"packages": {"fixbase": "1.0"}, "commits": {"mine": pin}}
    environment.repairs(tables, "packages.fixpin")
    (found,) = (result for result in environment.examine(tables).results if result.id == "packages.fixpin")
    assert found.found == f"fixpin 1.0 at {commit[:12]}"


def test_packages_that_hide_others_are_removed(environment: Environment) -> None:
    environment.wheel("nvidia_fix")
    environment.wheel("fixplain")
    environment.install("nvidia_fix", "fixplain")
    environment.repairs({"packages": {"fixplain": "1.0"}}, "packages.cuda")
    assert not (environment.site / "nvidia_fix").exists()


def test_managed_python_gets_a_virtual_environment(tmp_path: Path) -> None:
    system = Path("/usr/bin/python3")
    (marker, *_) = [*Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED"), None]
    probe = [str(system), "-c", "import ensurepip"]
    if marker is None or subprocess.run(probe, capture_output=True).returncode:
        unavailable("no managed Python with venv: apt-get install python3-venv, on Debian or Ubuntu")
    environment = Environment(system, "pip", tmp_path / "wheels", tmp_path)
    environment.wheel("fixmanaged")
    tables = {"packages": {"fixmanaged": "1.0"}}
    first = environment.examine(tables).first
    assert first is not None
    environment.run(["bash", "-c", first.fix])
    environment.python = tmp_path / "mine/bin/python"
    assert environment.examine(tables).first is None


@pytest.fixture(params=["pip", "uv"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    """An environment whose package manager uses the package index as configured on this machine."""
    environment = make_environment(tmp_path, request.param)
    environment.online = True
    yield environment
    shutil.rmtree(tmp_path / "env")  # hundreds of megabytes
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def install_released(environment: Environment, *requirements: str) -> None:
    try:
        environment.install(*requirements)
    except AssertionError as e:
        unavailable(f"the package index does not answer: {e}")


@pytest.mark.needs("network")
def test_released_packages_of_other_versions_are_replaced(online: Environment) -> None:
    install_released(online, "six==1.15.0", "python-dateutil==2.9.0.post0", "idna==3.6")
    tables = {"packages": {"python-dateutil": "2.9.0.post0", "idna": "3.10", "six": "1.17.0"}}
    found = online.repairs(tables, "packages.idna")
    assert found.fix.endswith("--no-deps idna==3.10 six==1.17.0")


@pytest.mark.needs("network")
@pytest.mark.parametrize("removed", [False, True])
def test_triton_ascend_gets_its_files_back(online: Environment, removed: bool) -> None:
    install_released(online, "triton-ascend==3.2.0")
    install_released(online, "triton==3.5.1")
    if removed:
        uninstall = [str(online.python), "-m", "pip", "uninstall", "--yes", "triton"]
        if online.manager == "uv":
            uninstall = ["uv", "pip", "uninstall", "--python", str(online.python), "triton"]
        online.run(uninstall)
    online.repairs({"packages": {"triton-ascend": "3.2.0"}}, "packages.intact")
    assert (online.site / "triton/backends/ascend/__init__.py").exists()
