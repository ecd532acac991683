"""The wheel holds everything: installed in a bare environment, the tool finds its data."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PIP = ["-m", "pip", "--disable-pip-version-check", "-qq"]

pytestmark = [pytest.mark.slow, pytest.mark.needs("network")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))
    return next(folder.glob("vimectl-*.whl"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``vimectl`` of an environment that has the wheel, what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", str(folder))
    python = str(folder / "bin" / "python")
    run(python, *PIP, "install", "--no-deps", "--require-hashes", "-r", str(ROOT / "requirements/tool.txt"))
    run(python, *PIP, "install", "--no-deps", str(wheel))
    return folder / "bin" / "vimectl"


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command outside the checkout's reach and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_packages_and_the_data_folders_are_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for expected in (
        "vimectl/cli/__init__.py",
        "vime_runtime/train_loop.py",
        "vimectl/_data/recipes/qwen3-tiny-tp2.toml",
        "vimectl/_data/recipes/recipe.schema.json",
        "vimectl/_data/patches/vllm/0.32.0/series.toml",
        "vimectl/_data/patches/vllm-ascend/0.22.1rc1/0001-colocated-start-up.patch",
        "vimectl/_data/docker/README.md",
        "vimectl/stacks/locks/cpu-0.32.txt",
        "vimectl/images/locks/ascend-0.22.txt",
        "vimectl/runs/report/page.html.j2",
        "vimectl/runs/report/page.css",
        "vimectl/runs/report/page.js",
    ):
        assert expected in names


def test_recipes_and_patches_are_found(bare: Path, tmp_path: Path) -> None:
    assert "qwen3-tiny-tp2" in run(str(bare), "recipe", "list", cwd=tmp_path)
    listed = run(str(bare), "patch", "list", "--stack", "cpu-0.32", cwd=tmp_path)
    assert "0002-cpu-sleep-mode-backend" in listed
    assert "0001-current-device" in listed


def test_edit_of_an_installed_package_becomes_a_patch_that_survives_a_reinstall(
    bare: Path, tmp_path: Path
) -> None:
    python = bare.with_name("python")
    site = Path(run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Of the dependencies in the locks: the index has its release.
    package, version = (
        "packaging",
        run(str(python), "-c", "import packaging; print(packaging.__version__)").strip(),
    )
    record = site / f"{package}-{version}.dist-info" / "RECORD"
    files = ("tags.py", "utils.py")
    released = {name: (site / package / name).read_bytes() for name in files}
    for name in files:
        (site / package / name).write_bytes(released[name] + b"# mine\n")
    run(str(bare), "patch", "save", "mine", package, "-m", "Say mine", cwd=tmp_path)
    pinned = f"{package}=={version}"
    run(str(python), *PIP, "install", "--no-deps", "--no-compile", "--force-reinstall", pinned)
    assert {name: (site / package / name).read_bytes() for name in files} == released
    reinstalled = record.read_bytes()
    run(str(bare), "patch", "apply", cwd=tmp_path)
    run(str(bare), "patch", "verify", cwd=tmp_path)
    assert all((site / package / name).read_bytes().endswith(b"# mine\n") for name in files)
    run(str(python), *PIP, "check")
    run(str(bare), "patch", "revert", cwd=tmp_path)
    assert {name: (site / package / name).read_bytes() for name in files} == released
    assert record.read_bytes() == reinstalled
    assert {path.name for path in tmp_path.iterdir()} == {"patches", "vimectl.toml"}


def test_an_image_is_planned_and_a_wheel_of_vimectl_is_made_again(
    bare: Path, wheel: Path, tmp_path: Path
) -> None:
    planned = run(str(bare), "image", "plan", "--stack", "ascend-0.22", cwd=tmp_path)
    assert "sgl-kernel-npu" in planned
    # The dependencies alone, without the extra `image`.
    build = [str(bare), "image", "build", "--stack", "ascend-0.22"]
    refused = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, "vimectl[image]" in refused.stderr) == (3, True)
    code = "import sys; from pathlib import Path; from vimectl.env import vimectl_wheel; "
    code += "print(vimectl_wheel.make_wheel(Path(sys.argv[1])))"
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = run(str(bare.with_name("python")), "-c", code, str(tmp_path / name), cwd=tmp_path).strip()
        made.append(Path(path))
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[0].name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(made[0]) as again:
        assert set(again.namelist()) == set(first.namelist())
        for name in set(first.namelist()):
            assert name.endswith("/RECORD") or again.read(name) == first.read(name)
