"""Make random patches and trees: the patch may be damaged, the tree may have changed since.

Everything follows from a seed. A tree is a mapping of paths to files as git stores them.
"""

from __future__ import annotations

import random
import re
import tempfile
from pathlib import Path

from harness.git import git
from vimectl.patches.blobs import LINK
from vimectl.patches.patchfile.apply import GitFile

Tree = dict[str, GitFile]

PATHS = [
    "a.txt",
    "dir/b.py",
    "dir/sub/c",
    "sp ace/d e.txt",
    "ünï.py",
    "x",
    'quo"te',
    "long/er/path/to/file.py",
]
# Few different lines, so that hunks have look-alikes nearby.
LINES = [b"a", b"b", b"c", b"", b"  d", b"-x", b"+y", b"\xff\xe9", b"@@ -1 +1 @@", b"-- ", b"e\t", b"From x"]
# What git 2.39 and later ones do differently: they pass over or refuse a mark behind no line, take
# or leave one that is cut short, and make a file or a submodule of a mode that is neither.
_VARIES = re.compile(
    rb"^[@\\].*\n\\ |^\\ .{0,9}$|(?:mode|index \S+) (?!100644|100755|120000)[0-7]", re.MULTILINE
)
# Where git confuses itself: it gives the names of a header that nothing follows to the next diff. vimectl
# refuses such a patch.
_HEADLESS = re.compile(
    rb"^diff --git .*\n(?!(?:old|new|new file|deleted file) mode |(?:copy|rename) (?:from|to) |"
    rb"(?:dis)?similarity index |index |--- |\+\+\+ |@@ -)",
    re.MULTILINE,
)
# The diff of one regular file whose mode does not change.
_PLAIN = re.compile(
    rb"diff --git .*\n(?:(?:new|deleted) file mode 100644\n)?index .*\n"
    rb"--- (?P<old>\S+)\n\+\+\+ (?P<new>\S+)\n(?P<hunks>@@ (?s:.*))"
)
ACCIDENTS = [
    "count",
    "start",
    "cut",
    "drop",
    "double",
    "char",
    "crlf",
    "blank",
    "swap",
    "garbage",
    "mail",
    "unmark",
    "mark",
    "twice",
    "index",
    "mode",
    "wrap",
]
REGULAR = ("100644", "100755")


def write_file(path: Path, file: GitFile) -> None:
    """Write a file or symbolic link to a new path, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.mode == LINK:
        path.symlink_to(file.content.decode("utf-8", "surrogateescape"))
    else:
        path.write_bytes(file.content)
        path.chmod(int(file.mode[-3:], 8))


def content(random: random.Random, longest: int = 30) -> bytes:
    """Return a file with line ends of one kind or mixed, with or without one at the end, or empty."""
    if random.random() < 0.05:
        return random.randbytes(random.randint(1, 200)) + b"\0"
    ends = random.choice([[b"\n"]] * 6 + [[b"\r\n"], [b"\n", b"\r\n"]])
    lines = [random.choice(LINES) + random.choice(ends) for _ in range(random.randint(0, longest))]
    whole = b"".join(lines)
    return whole.rstrip(b"\r\n") if random.random() < 0.15 else whole


def tree(random: random.Random) -> Tree:
    paths = random.sample(PATHS, random.randint(1, 4))
    found = {path: GitFile(content(random), random.choice(["100644"] * 4 + ["100755"])) for path in paths}
    if random.random() < 0.1:
        found["link"] = GitFile(random.choice([b"a.txt", b"dir/b.py"]), LINK)
    return found


def edited(random: random.Random, old: bytes, changes: int = 3) -> bytes:
    lines = old.splitlines(keepends=True) if b"\r" not in old else re.findall(rb"[^\n]*\n|[^\n]+", old)
    for _ in range(random.randint(1, changes)):
        place = random.randint(0, len(lines))
        fresh = [random.choice(LINES) + b"\n" for _ in range(random.randint(0, 3))]
        lines[place : place + random.randint(0, 3)] = fresh
    return b"".join(lines)


def changed(random: random.Random, old: Tree) -> Tree:
    """Return a tree with some files edited, moved, copied, created or removed."""
    new = dict(old)
    free = [path for path in PATHS if path not in old]
    random.shuffle(free)
    for path in random.sample(sorted(old), random.randint(0, min(3, len(old)))):
        file = old[path]
        kind = random.choice(["edit"] * 6 + ["delete", "rename", "copy", "mode", "type"])
        if file.mode == LINK:
            kind = random.choice(["link", "delete"])
        target = free.pop() if free and kind in ("rename", "copy") else path
        if kind in ("delete", "rename"):
            del new[path]
        if kind == "delete":
            continue
        after, mode = file.content, file.mode
        if kind == "mode" or (kind in ("edit", "rename") and random.random() < 0.1):
            mode = REGULAR[mode == "100644"]
        if kind == "edit" or (kind in ("rename", "copy") and random.random() < 0.6):
            after = edited(random, file.content)
        new[target] = GitFile(b"elsewhere", LINK) if kind in ("type", "link") else GitFile(after, mode)
    if free and (new == old or random.random() < 0.3):
        new[free[-1]] = GitFile(content(random, 8), random.choice(REGULAR))
    return new


def diff(random: random.Random, old: Tree, new: Tree) -> bytes:
    """Return the diff of two trees as git, or for some files GNU diff, writes it."""
    moves = random.choice([["--no-renames"], ["-M"], ["-M", "-C", "--find-copies-harder"]])
    options = [f"-U{random.choice([3] * 6 + [0, 1, 2, 5])}", random.choice(["--full-index", "--abbrev=7"])]
    with tempfile.TemporaryDirectory(prefix="pairs-") as scratch:
        repository, trees = Path(scratch, "repository"), []
        repository.mkdir()
        git(repository, "init", "-q", "--bare", "--template=")
        for name, files in (("old", old), ("new", new)):
            Path(scratch, name).mkdir()
            for path, file in files.items():
                write_file(Path(scratch, name, path), file)
            git(repository, f"--work-tree=../{name}", "add", "--all")
            trees.append(git(repository, "write-tree").decode().strip())
        text = git(repository, "diff", "--binary", *moves, *options, *trees)
    files = re.split(rb"^(?=diff --git )", text, flags=re.MULTILINE)[1:]
    return b"".join(traditional(random, one) if random.random() < 0.15 else one for one in files)


def traditional(random: random.Random, diff: bytes) -> bytes:
    """Return the diff of a regular file as GNU diff writes it, others unchanged."""
    found = _PLAIN.fullmatch(diff)
    if not found:
        return diff
    sides, hunks = [found["old"], found["new"]], found["hunks"]
    if random.random() < 0.5:
        name = sides[0][2:] if sides[1] == b"/dev/null" else sides[1][2:]
        for side, prefix in enumerate((b"a/", b"b/")):
            made = b"1970-01-01 01:00" if sides[side] == b"/dev/null" else b"2026-11-25 00:00"
            sides[side] = prefix + name + b"\t" + made + b":00.000000000 +0100"
    return b"--- %s\n+++ %s\n" % (sides[0], sides[1]) + hunks


def moved_on(random: random.Random, old: Tree, new: Tree) -> Tree:
    """Return the tree to patch: the original, one that has changed since, or one that is patched already."""
    kind = random.choice(["same"] * 5 + ["applied", "half"] + ["changed"] * 6)
    if kind == "same":
        return dict(old)
    if kind == "applied":
        return dict(new)
    if kind == "half":
        return {**old, **{path: file for path, file in new.items() if random.random() < 0.5}}
    met = dict(old)
    for path in random.sample(sorted(met), random.randint(1, len(met))):
        file = met[path]
        if file.mode == LINK:
            continue
        lines = re.findall(rb"[^\n]*\n|[^\n]+", file.content)
        place = random.choice([0, len(lines), random.randint(0, len(lines))])
        what = random.choice(
            ["insert"] * 4 + ["remove", "newline", "crlf", "mode", "gone", "link", "extra", "empty"]
        )
        if what == "insert":
            lines[place:place] = [random.choice(LINES) + b"\n" for _ in range(random.randint(1, 4))]
        elif what == "remove":
            del lines[place : place + 1]
        elif what == "newline" and lines:
            lines[-1] = lines[-1].rstrip(b"\n") if lines[-1].endswith(b"\n") else lines[-1] + b"\n"
        elif what == "crlf":
            lines = [
                line.replace(b"\r", b"") if b"\r" in line else line.replace(b"\n", b"\r\n") for line in lines
            ]
        elif what == "empty":
            lines = []
        met[path] = GitFile(b"".join(lines), file.mode)
        if what == "mode":
            met[path] = GitFile(file.content, REGULAR[file.mode == "100644"])
        elif what == "link":
            met[path] = GitFile(b"a.txt", LINK)
        elif what == "gone":
            del met[path]
        elif what == "extra":
            free = [name for name in PATHS if name not in met]
            met.update({name: GitFile(content(random, 3)) for name in free[:1]})
    return met


def broken(random: random.Random, patch: bytes) -> bytes:
    """Damage a patch as an editor or a mail program does."""
    lines = patch.split(b"\n")
    place = random.randrange(len(lines))
    kind = random.choice(ACCIDENTS)
    heads = [number for number, line in enumerate(lines) if line.startswith(b"@@ -")]
    if kind in ("count", "start") and heads:
        place = random.choice(heads)
        numbers = list(re.finditer(rb"\d+", lines[place]))[:4]
        chosen = random.choice(numbers[1::2] if kind == "count" and len(numbers) == 4 else numbers)
        value = max(0, int(chosen[0]) + random.choice([-2, -1, 1, 2, 7]))
        lines[place] = lines[place][: chosen.start()] + b"%d" % value + lines[place][chosen.end() :]
    elif kind == "cut":
        return patch[: random.randrange(len(patch))]
    elif kind == "drop":
        del lines[place]
    elif kind == "double":
        lines.insert(place, lines[place])
    elif kind == "char" and lines[place]:
        at = random.randrange(len(lines[place]))
        lines[place] = (
            lines[place][:at] + random.choice([b" ", b"-", b"+", b"x", b"", b"/"]) + lines[place][at + 1 :]
        )
    elif kind == "crlf":
        lines = [line + b"\r" for line in lines]
    elif kind == "blank":
        lines = [line.rstrip() for line in lines]
    elif kind == "swap" and len(heads) > 1:
        first, second = heads[0], heads[1]
        end = heads[2] if len(heads) > 2 else len(lines) - 1
        lines[first:end] = lines[second:end] + lines[first:second]
    elif kind == "garbage":
        lines[place:place] = [b"some words", b"", b"Index: x"]
    elif kind == "mail":
        lines = [
            b"From 0123 Mon Sep 17 00:00:00 2001",
            b"Subject: x",
            b"",
            b"---",
            *lines[:-1],
            b"-- ",
            b"2.39.5",
            b"",
        ]
    elif kind == "unmark":
        lines = [line for line in lines if not line.startswith(b"\\")]
    elif kind == "mark":
        lines.insert(place, b"\\ No newline at end of file")
    elif kind == "twice":
        lines = lines[:-1] + lines
    elif kind == "index":
        lines = [line for line in lines if not line.startswith(b"index ")]
    elif kind == "mode":
        lines = [line.replace(b"100644", b"100755") if random.random() < 0.5 else line for line in lines]
    elif kind == "wrap" and len(lines[place]) > 4:
        lines[place : place + 1] = [lines[place][:3], lines[place][3:]]
    return b"\n".join(lines)


def pair(seed: int) -> tuple[bytes, Tree]:
    """Return a patch and the tree to apply it to."""
    choose = random.Random(seed)
    old = tree(choose)
    new = changed(choose, old)
    patch = diff(choose, old, new)
    if not patch:
        return pair(seed + 10_000_019)
    if choose.random() < 0.4:
        patch = broken(choose, patch)
    if _VARIES.search(patch) or _HEADLESS.search(patch):
        return pair(seed + 20_000_003)
    return patch, moved_on(choose, old, new)
