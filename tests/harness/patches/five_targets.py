"""A project of five targets, two installed packages and three work trees, with six patches that change."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from harness.git import commit
from harness.patches import disk_operations
from harness.patches.toy_packages import Tree, build_series, install, lay, snapshot
from vimectl.patches import command
from vimectl.patches.plan import PatchAction
from vimectl.patches.selection import Selection

Paths = tuple[str, ...]
LINES = [f"line {number}\n".encode() for number in range(40)]
SOURCE = b"".join(LINES)
# The layouts of Megatron-LM, Megatron-Bridge and MindSpeed, each with a file outside of its package.
WORK_TREES: Mapping[str, Paths] = {
    "megatron-lm": ("megatron/core/__init__.py", "megatron/training/training.py", "pretrain_gpt.py"),
    "megatron-bridge": ("src/megatron/bridge/__init__.py", "src/megatron/bridge/models.py", ".github/ci.yml"),
    "mindspeed": ("mindspeed/__init__.py", "mindspeed/megatron_adaptor.py", "docs/features=all.md"),
}
INSTALLED: Mapping[str, Paths] = {
    "serving": ("serving/__init__.py", "serving/worker.py"),
    "serving-ascend": ("serving_ascend/__init__.py", "serving_ascend/worker.py"),
}
# The patches of each package: id, the index of the file, and the line that it changes.
Plan = Mapping[str, list[tuple[str, int, int, str]]]
FIRST: Plan = {
    "serving": [("free-memory", 1, 3, "one")],
    "serving-ascend": [("profile", 1, 3, "one")],
    "megatron-lm": [("device", 1, 3, "one"), ("rng", 1, 20, "two")],
    "megatron-bridge": [("export", 1, 3, "one")],
    "mindspeed": [("adaptor", 1, 3, "one")],
}
# Three patches are changed, one of them touches another file, and the two of Megatron-LM change places.
SECOND: Plan = {
    "serving": [("free-memory", 1, 3, "ONE")],
    "serving-ascend": [("profile", 1, 3, "one")],
    "megatron-lm": [("rng", 1, 20, "two"), ("device", 1, 3, "one")],
    "megatron-bridge": [("export", 2, 5, "ONE")],
    "mindspeed": [("adaptor", 1, 7, "ONE")],
}


class FiveTargets:
    """The project in ``folder``.

    ``released`` has by package the directories of two releases, with their files at the paths ``paths``,
    which are patched instead of the two made packages.
    """

    def __init__(
        self, folder: Path, released: Mapping[str, Path] | None = None, paths: Mapping[str, Paths] = INSTALLED
    ) -> None:
        self.folder = folder
        self.site = folder / "site-packages"
        self.places = [self.site, *(folder / name for name in WORK_TREES)]
        self.paths = dict(paths)
        for package in () if released else paths:
            install(self.site, package.replace("-", "_"), tree(paths[package]))
            info = self.site / f"{package.replace('-', '_')}_cpu-1.0.dist-info"
            name = info.name.replace("_cpu", "")
            record = info / "RECORD"
            record.write_bytes(record.read_bytes().replace(info.name.encode(), name.encode()))
            info.rename(info.with_name(name))
        for package, directory in (released or {}).items():
            metadata = [str(path.relative_to(directory)) for path in directory.glob("*.dist-info/*")]
            for path in (*paths[package], *metadata):
                (self.site / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(directory / path, self.site / path)
        for name, files in WORK_TREES.items():
            lay(folder / name, tree(files))
            commit(folder / name)
        self.released: dict[str, Tree] = {
            name: {path: (0o644, (place / path).read_bytes()) for path in files}
            for name, files in {**self.paths, **WORK_TREES}.items()
            for place in [self.site if name in self.paths else folder / name]
        }
        self.write(FIRST)

    def write(self, plan: Plan) -> None:
        """Write the project file and the series."""
        plan = {**dict(zip(self.paths, (plan[name] for name in INSTALLED), strict=True)), **plan}
        plan = {name: plan[name] for name in (*self.paths, *WORK_TREES)}
        lines = ["[patches]", *(f'{name} = ["patches/{name}"]' for name in plan), "", "[targets]"]
        lines += [f'{name} = "site-packages"' for name in self.paths]
        lines += [f'{name} = "{name}"' for name in WORK_TREES]
        (self.folder / "vimectl.toml").write_text("\n".join(lines) + "\n")
        for package, patches in plan.items():
            directory = self.folder / "patches" / package
            shutil.rmtree(directory, ignore_errors=True)
            paths = {**self.paths, **WORK_TREES}[package]
            stages = [self.released[package]]
            for _, file, line, text in patches:
                stages.append(dict(stages[-1]))
                lines_of = stages[-1][paths[file]][1].splitlines(keepends=True)
                lines_of[line] = f"{text}\n".encode()
                stages[-1][paths[file]] = (0o644, b"".join(lines_of))
            directory.parent.mkdir(exist_ok=True)
            build_series(package, stages, directory, [patch_id for patch_id, *_ in patches])
            (directory / "series.toml").write_text(f'package = "{package}"\n')

    def selection(self) -> Selection:
        return Selection(stack=str(self.folder / "vimectl.toml"))

    def change(self, action: PatchAction) -> command.PatchOutcome:
        return command.change(action, self.selection().statuses())

    def states(self) -> list[str]:
        return [status.state for status in self.selection().statuses()]

    def now(self) -> dict[str, tuple[int, bytes]]:
        return snapshot(*self.places)

    def kill_everywhere(self, action: PatchAction, every: int) -> Counter[str]:
        """Perform a change, killed at every n-th operation first; each time all of it or nothing is done.

        Returns how often each operation was reached. The change is done at the end.
        """
        kept = self.folder.with_name(f"{self.folder.name}.kept")
        shutil.rmtree(kept, ignore_errors=True)
        for place in self.places:
            shutil.copytree(place, kept / place.name, symlinks=True)
        before = self.now()
        points: Counter[str] = Counter()
        point = 1
        done: list[dict[str, tuple[int, bytes]]] = []
        while operation := disk_operations.die_at(point, lambda: self.change(action)):
            points[operation] += 1
            command.recover(self.places)
            if (now := self.now()) != before:
                done.append(now)
                for place in self.places:
                    shutil.rmtree(place)
                    shutil.copytree(kept / place.name, place, symlinks=True)
            point += every
        after = self.now()
        assert after != before
        assert all(one == after for one in done), f"{action}: killed half-way, and not completed"
        return points


def tree(paths: Paths) -> Tree:
    return dict.fromkeys(paths, (0o644, SOURCE))
