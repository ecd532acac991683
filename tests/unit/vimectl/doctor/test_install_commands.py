"""The commands that install packages, for each package manager."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from vimectl.doctor.facts import Facts
from vimectl.doctor.facts.python_environment import PythonEnvironment, read_python_environment
from vimectl.doctor.install_commands import Install, Uninstall, commands
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.interpreters import Interpreter, examined_interpreter
from vimectl.util.host import CommandResult, Host, refuse_command

HUAWEI = "--extra-index-url https://mirrors.huaweicloud.com/ascend/repos/pypi"
PYTORCH = "https://download.pytorch.org/whl/cpu"
PIP = PythonEnvironment("/e/bin/python", machine="aarch64")
UV = PythonEnvironment("/e/bin/python", uses_uv=True, machine="aarch64")


class KnownEnvironment:
    """Facts of which only the environment is known."""

    def __init__(self, environment: PythonEnvironment) -> None:
        self.environment = environment
        self.stack = load_stack("ascend-0.22")
        self.interpreter = Interpreter("", "", ())

    def read(self, reader: object, *args: object) -> PythonEnvironment:
        assert reader is read_python_environment
        return self.environment


def text(environment: PythonEnvironment, *steps: Install | Uninstall | str) -> str:
    return commands(cast("Facts", KnownEnvironment(environment)), *steps)


def test_exact_versions_are_installed_in_one_command() -> None:
    step = Install(["numpy<2", "torch-npu==2.10.0"])
    assert text(PIP, step) == "/e/bin/python -m pip install --no-deps 'numpy<2' torch-npu==2.10.0"
    assert text(UV, step) == "uv pip install --python /e/bin/python --no-deps 'numpy<2' torch-npu==2.10.0"


def test_steps_run_in_order_and_stop_at_a_failure() -> None:
    steps = (Uninstall(["triton", "triton-ascend"]), Install(["triton-ascend==3.2.1"], "replace"))
    assert text(PIP, *steps) == (
        "/e/bin/python -m pip uninstall --yes triton triton-ascend"
        f" && /e/bin/python -m pip install --force-reinstall --no-deps {HUAWEI} triton-ascend==3.2.1"
    )
    assert text(UV, *steps) == (
        "uv pip uninstall --python /e/bin/python triton triton-ascend"
        f" && uv pip install --python /e/bin/python --reinstall --no-cache --no-deps {HUAWEI}"
        " --index-strategy unsafe-best-match triton-ascend==3.2.1"
    )


def test_damaged_metadata_is_written_over() -> None:
    assert "--ignore-installed --no-deps" in text(PIP, Install(["ray==2.48.0"], "ignore"))
    assert "--reinstall --no-cache --no-deps" in text(UV, Install(["ray==2.48.0"], "ignore"))


@pytest.mark.parametrize(
    ("requirements", "options"),
    [
        (["torch==2.10.0+cpu", "torchvision==0.25.0+cpu"], f"--index-url {PYTORCH} "),
        (["torch==2.10.0+cpu", "ray==2.48.0"], f"--extra-index-url {PYTORCH} "),
        (["torch-npu==2.9.0.post1+git4c901a4"], f"{HUAWEI} "),
        (["torch==2.10.0", "ray==2.48.0"], ""),
    ],
)
def test_builds_come_from_the_index_that_has_them(requirements: list[str], options: str) -> None:
    wanted = f"/e/bin/python -m pip install --no-deps {options}{' '.join(requirements)}"
    assert text(PIP, Install(requirements)) == wanted


def test_checkout_is_installed_in_place_with_its_variables() -> None:
    step = Install(editable="/src/my tree", variables="COMPILE_CUSTOM_KERNELS=1")
    assert text(PIP, step) == (
        "COMPILE_CUSTOM_KERNELS=1 /e/bin/python -m pip install --no-deps --no-build-isolation"
        " --editable '/src/my tree'"
    )


def test_commands_for_another_root_run_in_it() -> None:
    root = PythonEnvironment("python3", machine="x86_64", root="/mnt/image")
    step = Install(["ray==2.48.0"], variables="A=1")
    assert text(root, step) == "chroot /mnt/image env A=1 python3 -m pip install --no-deps ray==2.48.0"
    assert text(root, Uninstall(["apex"]), "git -C /src fetch") == (
        "chroot /mnt/image python3 -m pip uninstall --yes apex && chroot /mnt/image git -C /src fetch"
    )


def test_managed_python_is_not_changed() -> None:
    managed = PythonEnvironment("/usr/bin/python3", managed=True)
    assert text(managed, Uninstall(["torch"]), Install(["torch==2.10.0"])) == (
        "/usr/bin/python3 -m venv --system-site-packages ~/ascend-0.22"
        " && ~/ascend-0.22/bin/python -m pip install --no-deps torch==2.10.0"
        "  # the distribution manages /usr/bin/python3 (PEP 668): use ~/ascend-0.22/bin/python"
    )
    assert "install the stack there" in text(managed, Uninstall(["torch"]))
    assert text(managed, "git -C /src fetch") == "git -C /src fetch"


def environment_of(root: Path, config: str | None, *files: str, pip: bool = True) -> PythonEnvironment:
    """Read the environment of /e/bin/python in a root that is only read."""
    site = root / "e/lib/python3.11/site-packages"
    for path in (root / "e/bin", site):
        path.mkdir(parents=True)
    (root / "e/bin/python3.11").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00")
    (root / "e/bin/python").symlink_to("python3.11")
    if config is not None:
        (root / "e/pyvenv.cfg").write_text(config)
    if pip:
        (site / "pip-26.0.dist-info").mkdir()
    for name in files:
        (root / name).touch()
    host = Host(root, {}, refuse_command, given_python="/e/bin/python")
    return read_python_environment(host, examined_interpreter(host))


def test_uv_is_used_where_it_made_the_environment(tmp_path: Path) -> None:
    found = environment_of(tmp_path, "home = /usr/bin\nuv = 0.9.1\n")
    assert found == PythonEnvironment("/e/bin/python", True, False, "aarch64", str(tmp_path))


def test_uv_is_used_in_a_virtual_environment_without_pip(tmp_path: Path) -> None:
    assert environment_of(tmp_path, "home = /usr/bin\n", pip=False).uses_uv


def test_pip_is_used_elsewhere(tmp_path: Path) -> None:
    assert not environment_of(tmp_path / "venv", "home = /usr/bin\n").uses_uv
    assert not environment_of(tmp_path / "conda", None, pip=False).uses_uv


def test_python_of_a_distribution_is_managed(tmp_path: Path) -> None:
    marker = "e/lib/python3.11/EXTERNALLY-MANAGED"
    assert environment_of(tmp_path / "system", None, marker).managed
    # A virtual environment of that Python is not.
    assert not environment_of(tmp_path / "venv", "home = /e/bin\n", marker).managed


def test_machine_of_a_running_machine_is_asked(tmp_path: Path) -> None:
    def answer(argv: object, timeout: float) -> CommandResult:
        return CommandResult(0, "x86_64\n")

    found = read_python_environment(Host(tmp_path, {}, answer), Interpreter("", "", ()))
    assert (found.machine, found.root) == ("x86_64", "")
