"""Targets that a seed makes to lead commands outside, to make them wait forever, or to exhaust the machine.

    python -m harness.patches.hostile_targets ROOT SEED

builds one in ROOT, runs every patch command that takes a target, and prints a JSON list with an object for
each: the exit code, what it printed, and the names of files outside that changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from harness.patches.toy_packages import STAGES, Tree, build_series, install
from vimectl.cli import run_cli
from vimectl.patches.blobs import blob_id

MEMORY = 2 * 2**30
TOKEN = "0123456789abcdef" * 2
DEEP = "[" * 200_000
Attack = Callable[["World", random.Random], None]


class World:
    """A target with an installed package, a series for it, a project, and files outside."""

    def __init__(self, root: Path) -> None:
        self.root, self.target, self.outside = root, root / "site", root / "outside"
        self.own = self.target / ".vimectl"
        release: Tree = {path: (0o644, content) for path, content in STAGES[0].items()}
        install(self.target, "toy", release)
        self.info = self.target / "toy_cpu-1.0.dist-info"
        stages: list[Tree] = [release]
        for files in STAGES[1:]:
            stages.append(stages[-1] | {path: (0o644, content) for path, content in files.items()})
        build_series("toy", stages, root / "series")
        shutil.copytree(self.target / "toy", self.outside / "toy")
        (self.outside / "__pycache__").mkdir()
        (self.outside / "__pycache__" / "both.cpython-311.pyc").write_bytes(b"bytecode")
        (self.outside / "empty").mkdir()
        (self.outside / "secret.txt").write_text("secret\n")
        (self.outside / "secret.txt").chmod(0o600)
        (self.outside / "link").symlink_to("secret.txt")
        (root / "work").mkdir()
        (root / "work" / "vimectl.toml").write_text(
            '[patches]\ntoy = ["../series"]\n[targets]\ntoy = "../site"\n'
        )
        (root / "tmp").mkdir()

    def place(self, path: Path) -> Path:
        """Return a path of which nothing exists but its folders."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return path


def odd_file(world: World, rng: random.Random, path: Path) -> None:
    """Put something that is no ordinary file in the place of a file."""
    secret = world.outside / "secret.txt"
    place = world.place(path)
    kind = rng.choice(["fifo", "zero", "link", "hard link", "huge", "folder", "deep", "closed", "device"])
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "zero":
        place.symlink_to("/dev/zero")
    elif kind == "link":
        place.symlink_to(secret)
    elif kind == "hard link":
        os.link(secret, place)
    elif kind == "huge":
        place.touch()
        os.truncate(place, 2**40)
    elif kind == "folder":
        (place / "folder").mkdir(parents=True)
    elif kind == "device" and os.geteuid() == 0:
        os.mknod(place, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    else:
        place.write_text(DEEP)
        place.chmod(0 if kind == "closed" else 0o644)


def bookkeeping_file(world: World, rng: random.Random) -> None:
    names = ["journal.json", "ledger.json", "lock", ".gitignore", "stage", "objects", "stage/0.after"]
    odd_file(world, rng, world.own / rng.choice(names))


def bookkeeping_link(world: World, rng: random.Random) -> None:
    path = rng.choice([world.own, world.own / "stage", world.own / "objects"])
    world.place(path).symlink_to(rng.choice([world.outside, world.target / "toy"]))


def journal(world: World, rng: random.Random) -> None:
    """A journal as this tool writes it, with moves through a link, out of the target, or of odd types."""
    if not os.path.lexists(world.target / "out"):
        (world.target / "out").symlink_to(world.outside)
    content = (world.outside / "toy" / "both.py").read_bytes()
    path = rng.choice(
        ["out/toy/both.py", "../outside/toy/both.py", f"{world.outside}/toy/both.py", "a\0b", 5]
    )
    before, after = rng.choice(
        [(blob_id(content), None), (None, blob_id(content)), (blob_id(content), "1" * 40)]
    )
    move = {
        "root": rng.choice([0, 0, 0, -1, 7, "0"]),
        "path": path,
        "before": before,
        "after": after,
        "before_mode": 0o100644,
        "after_mode": rng.choice([0o104755, 2**70]),
    }
    document = {
        "action": "apply",
        "forward": True,
        "token": rng.choice([TOKEN, "t", "../" * 8, 5]),
        "roots": rng.choice([[str(world.target), other] for other in (str(world.outside), 5)]),
        "moves": rng.choice([[move], [move] * 3, move, None]),
        "folders": rng.choice([[], [[0, "out/empty"]], [[1, "empty"]]]),
    }
    if rng.random() < 0.3:
        document = {"first": rng.choice([str(world.outside), "a\0b", 5]), "token": TOKEN}
    world.own.mkdir(exist_ok=True)
    (world.own / "stage").mkdir(exist_ok=True)
    (world.own / "stage" / "0.after").write_bytes(content)
    world.place(world.own / "journal.json").write_text(json.dumps(document))
    if os.geteuid() == 0 and rng.random() < 0.3:
        os.chown(world.own / "journal.json", 12345, 12345)


def ledger(world: World, rng: random.Random) -> None:
    """A record of applied patches that reach through links, or that would give privileges."""
    objects = world.own / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    (world.target / "toy" / "out").symlink_to(world.outside)
    evil = b"evil\n"
    text = (
        b"--- /dev/null\n+++ b/toy/out/evil.py\n@@ -0,0 +1 @@\n+evil\n"
        if rng.random() < 0.5
        else (
            f"diff --git a/toy/out/toy/both.py b/toy/out/toy/both.py\ndeleted file mode 100644\n"
            f"index {blob_id(evil)}..{'0' * 40}\n"
            "--- a/toy/out/toy/both.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-evil\n"
        ).encode()
    )
    for content in (evil, text):
        (objects / blob_id(content)).write_bytes(content)
    entry = {
        "name": "x",
        "patches": [["x", blob_id(text)]],
        "time": rng.choice(["t", 5]),
        "vimectl": "0",
        "modes": {"toy/out/toy/both.py": rng.choice([0o104755, -1, 2**70])},
        "folders": rng.choice([["toy/out/empty"], ["../outside/empty"], [5], "x"]),
    }
    document = {"schema": "vimectl.ledger/2", "packages": {"toy": rng.choice([entry, entry, entry, [], 5])}}
    world.place(world.own / "ledger.json").write_text(json.dumps(document))


def source_file(world: World, rng: random.Random) -> None:
    odd_file(world, rng, world.target / "toy" / rng.choice(["both.py", "crlf.py", "new.py", "__init__.py"]))


def source_hard_link(world: World, rng: random.Random) -> None:
    path = world.place(world.target / "toy" / "both.py")
    os.link(world.outside / "toy" / "both.py", path)


def source_folder(world: World, rng: random.Random) -> None:
    path = rng.choice(["toy", "src", "toy/__pycache__"])
    to = {"toy": "toy", "src": ".", "toy/__pycache__": "__pycache__"}[path]
    world.place(world.target / path).symlink_to(world.outside / to)


def metadata(world: World, rng: random.Random) -> None:
    odd_file(world, rng, world.info / rng.choice(["RECORD", "METADATA", "INSTALLER", "direct_url.json"]))


def metadata_folder(world: World, rng: random.Random) -> None:
    world.info.rename(world.outside / "info")
    world.info.symlink_to(world.outside / "info")


def many_records(world: World, rng: random.Random) -> None:
    for number in range(3):
        shutil.copytree(world.info, world.target / f"toy_{number}-1.0.dist-info")
    odd_file(world, rng, world.target / "toy" / "extra.py")
    odd_file(world, rng, world.target / "unrelated-1.0.dist-info" / "RECORD")


def work_tree(world: World, rng: random.Random) -> None:
    shutil.rmtree(world.info)
    git = world.target / ".git"
    (git / "objects").mkdir(parents=True)
    (git / "refs").mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "config").write_text(
        f"[core]\nrepositoryformatversion = 0\nfsmonitor = touch {world.outside}/run\n"
        f"hooksPath = {world.outside}\n"
    )
    odd_file(world, rng, world.target / rng.choice(["PKG-INFO", "setup.py"]))


ATTACKS: tuple[Attack, ...] = (
    bookkeeping_file,
    bookkeeping_link,
    journal,
    ledger,
    source_file,
    source_hard_link,
    source_folder,
    metadata,
    metadata_folder,
    many_records,
    work_tree,
)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about the files below a folder, and the folder, that a change would change.

    The number of names is not compared: replacing a hard link removes one.
    """
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else status.st_size
        if path.is_file() and not path.is_symlink() and status.st_size < 2**20:
            content = path.read_bytes()
        owner = status.st_uid, status.st_gid
        found[str(path)] = status.st_ino, status.st_mode, owner, status.st_mtime_ns, content
    return found


def commands(world: World) -> list[list[str]]:
    """Return every command that reads or writes a target; the changing ones come after those that look."""
    series, site = str(world.root / "series"), str(world.target)
    chosen = ["--series", series, "--target", site, "toy"]
    ported = ["--from", "1.0", "--to", "2.0", "--source", site, "--source", site, "--series", series]
    imported = ["--package", "toy", "--version", "1.0", "--against", site]
    return [
        ["list", "toy"],
        ["status", *chosen],
        ["verify", *chosen],
        ["diff", *chosen],
        ["apply", "--dry-run", *chosen],
        ["status", "toy"],
        ["lint", series, "--against", site],
        ["import", series, *imported, "--out", str(world.root / "imported")],
        ["port", "toy", *ported, "--out", str(world.root / "ported")],
        ["apply", *chosen],
        ["revert", *chosen],
        ["apply", "--merge", *chosen],
        ["revert", "--merge", *chosen],
        ["adopt", *chosen],
        ["save", "own", "toy", "-m", "own", "--include", "toy/*"],
        ["drop", "0001-first", "toy"],
        ["recover", *chosen],
        ["apply", "toy"],
        ["revert", "toy"],
    ]


def main(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    world = World(root)
    chosen = [ATTACKS[seed % len(ATTACKS)], *rng.sample(ATTACKS, rng.randint(0, 1))]
    for attack in dict.fromkeys(chosen):
        with contextlib.suppress(FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            attack(world, rng)  # a second one may find the place of the first
    before, own = snapshot(world.outside), snapshot(world.target) if world.target.exists() else {}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(root / "work")
    results = []
    for words in commands(world):
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run_cli(["patch", *words])
        printed.flush()
        text = printed.buffer.getvalue().decode("utf-8", "backslashreplace")
        after = snapshot(world.outside)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if (
            words[0] in ("list", "status", "verify", "diff", "lint")
            and (now := snapshot(world.target)) != own
        ):
            changed += sorted(name for name in own.keys() | now.keys() if own.get(name) != now.get(name))
        results.append({"words": words, "code": code, "text": text, "changed": changed})
        own = snapshot(world.target)
    print(json.dumps({"attacks": [attack.__name__ for attack in chosen], "results": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
