"""Series that a seed makes to read, write or remove files outside a target, or to exhaust the machine.

Each has one kind of attack, with details that the seed chooses, between harmless patches. The world around it
is a folder with a target, two releases, a project, and files outside that no command may touch.
"""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

from harness.patches.hostile_patches import binary_lines
from vimectl.patches.blobs import blob_id

SOURCE = b"a\nb\nc\nd\n"
NONE = "0" * 40
HEADER = b"Description: change\nAuthor: A <a@example.org>\n---\n"
Attack = Callable[[random.Random, Path], "list[bytes]"]


def build_world(root: Path, seed: int) -> str:
    """Fill an empty folder, and return the kind of attack."""
    for place in ("site", "release", "next"):
        (root / place / "toy" / "sub").mkdir(parents=True)
        (root / place / "toy" / "__init__.py").touch()
        (root / place / "toy" / "both.py").write_bytes(SOURCE)
        (root / place / "toy" / "near").symlink_to("sub")
        (root / place / "toy" / "way").symlink_to("../../outside")
        (root / place / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    outside = root / "outside"
    (outside / "folder").mkdir(parents=True)
    for name in ("secret.txt", "both.py", "folder/file", "notes.patch"):
        (outside / name).write_bytes(edit("toy/both.py", SOURCE, b"A\nb\nc\nd\n").replace(b"\n", b"\r\n"))
        (outside / name).chmod(0o640)
    (root / "work").mkdir()
    (root / "tmp").mkdir()
    project = '[patches]\ntoy = ["../series"]\n[targets]\ntoy = "../site"\n'
    (root / "work" / "vimectl.toml").write_text(project)
    folder = root / "series"
    folder.mkdir()
    (folder / "series.toml").write_text('package = "toy"\nversion = "1.0"\nmodule = "toy"\n')
    rng = random.Random(seed)
    kind = ATTACKS[seed % len(ATTACKS)]
    patches = [edit("toy/both.py", SOURCE, b"A\nb\nc\nd\n")] if rng.random() < 0.5 else []
    patches += kind(rng, folder)
    names = [f"{number:04}-p.patch" for number in range(1, len(patches) + 1)]
    for name, text in zip(names, patches, strict=True):
        (folder / name).write_bytes(HEADER + text)
    if not os.path.lexists(folder / "series"):
        (folder / "series").write_text("".join(f"{name}\n" for name in names))
    return kind.__name__


def diff(path: str, old: bytes | None, new: bytes | None, mode: str = "100644") -> bytes:
    """Return a diff of whole contents, with full ids."""
    before, after = (NONE if content is None else blob_id(content) for content in (old, new))
    action = (
        f"new file mode {mode}\n" if old is None else f"deleted file mode {mode}\n" if new is None else ""
    )
    ids = f"index {before}..{after}{'' if action else ' ' + mode}\n"
    sides = ["/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}"]
    names = f"--- {sides[0]}\n+++ {sides[1]}\n"
    text = f"diff --git a/{path} b/{path}\n{action}{ids}{names}".encode("utf-8", "surrogateescape")
    lines = [(old or b"").splitlines(True), (new or b"").splitlines(True)]
    counts = [f"{1 if part else 0},{len(part)}" for part in lines]
    text += f"@@ -{counts[0]} +{counts[1]} @@\n".encode()
    for sign, part in zip(b"-+", lines, strict=True):
        text += b"".join(bytes([sign]) + line for line in part)
        if part and not part[-1].endswith(b"\n"):
            text += b"\n\\ No newline at end of file\n"
    return text


def edit(path: str, old: bytes, new: bytes) -> bytes:
    return diff(path, old, new)


def create(path: str, content: bytes = b"evil\n", mode: str = "100644") -> bytes:
    return diff(path, None, content, mode)


def link(path: str, target: str) -> bytes:
    return diff(path, None, target.encode("utf-8", "surrogateescape"), "120000")


def unlink(path: str, target: str) -> bytes:
    return diff(path, target.encode(), None, "120000")


def quoted(name: str, *header: str) -> bytes:
    return "\n".join([f'diff --git "a/{name}" "b/{name}"', *header]).encode() + b"\n"


def binary(path: str, method: str, data: bytes, size: int) -> bytes:
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex {NONE}..{'1' * 40}\n"
    return head.encode() + f"GIT binary patch\n{method} {size}\n".encode() + binary_lines(data) + b"\n"


def _names(rng: random.Random, count: int) -> str:
    return "/".join(rng.choice("bcdefg") + str(number) for number in range(count))


def chain_deleted_through(rng: random.Random, folder: Path) -> list[bytes]:
    depth = rng.randint(3, 6)
    deep = _names(rng, depth)
    to = f"{deep}/L/" + "../" * rng.randint(2, depth) + "outside"
    first = link(f"toy/{deep}/L", "/".join([".."] * depth)) + link("toy/m", to)
    return [first, unlink("toy/m", to) + create("toy/m/secret.txt")]


def chain_over_patches(rng: random.Random, folder: Path) -> list[bytes]:
    depth = rng.randint(2, 5)
    deep = _names(rng, depth)
    links = [link(f"toy/{deep}/L0", "/".join([".."] * depth))]
    links += [
        link(f"toy/L{n}", f"{deep}/L0/" if n == 1 else f"L{n - 1}/..") for n in range(1, rng.randint(3, 6))
    ]
    return [*links, create(f"toy/L{len(links) - 1}/secret.txt")]


def chain_bent_later(rng: random.Random, folder: Path) -> list[bytes]:
    old, new = "sub", "sub/../.."
    return [
        link("toy/a", old) + link("toy/b", "a/.."),
        diff("toy/a", old.encode(), new.encode(), "120000"),
        create("toy/b/outside/secret.txt"),
    ]


def through_link_of_release(rng: random.Random, folder: Path) -> list[bytes]:
    name = rng.choice(["toy/way/secret.txt", "toy/way/folder/file", "toy/near/../way/both.py"])
    return rng.choice(
        [
            [diff(name, b"x\n", None)],
            [create(name)],
            [link("toy/q", "way/secret.txt"), create("toy/q2/x")],
            [link("toy/near2", "near/../../outside")],
            [unlink("toy/way", "../../outside") + create("toy/way/secret.txt")],
        ]
    )


def renames_of_links(rng: random.Random, folder: Path) -> list[bytes]:
    verb = rng.choice(["rename", "copy"])
    old, new = rng.choice(
        [("toy/way", "way"), ("toy/near", "toy/sub/x/near"), ("toy/way/both.py", "toy/b.py")]
    )
    moved = (
        f"diff --git a/{old} b/{new}\nsimilarity index 100%\n{verb} from {old}\n{verb} to {new}\n".encode()
    )
    return [moved, create(f"{new}/secret.txt")]


def absolute_links(rng: random.Random, folder: Path) -> list[bytes]:
    to = rng.choice([str(folder.parent / "outside"), "/etc", "//etc/x", "/proc/self/root/tmp"])
    return [link("toy/l", to), diff("toy/l", to.encode(), b"sub", "120000"), create("toy/l/x")]


def case_variants(rng: random.Random, folder: Path) -> list[bytes]:
    one, two = rng.choice(
        [("M", "m"), ("stra\u00dfe", "STRASSE"), ("\u00c4", unicodedata.normalize("NFD", "\u00e4"))]
    )
    return [link(f"toy/{one}", "sub"), create(f"toy/{two}/x")]


def reserved_paths(rng: random.Random, folder: Path) -> list[bytes]:
    name = rng.choice(
        [
            ".git/hooks/post-checkout",
            "toy/.GIT/config",
            ".vimectl/journal.json",
            "toy/.Vimectl/x",
            "GIT~1/config",
            ".git./x",
            ".g\u200cit/x",
        ]
    )
    return [create(name, mode="100755"), link("toy/g", "../.git/hooks")]


def dots(rng: random.Random, folder: Path) -> list[bytes]:
    name = rng.choice(
        ["../outside/secret.txt", "toy/../../outside/secret.txt", "./x", "toy//../../outside/x"]
    )
    return [rng.choice([create(name), diff(name, b"x\n", None), edit(name, b"x\n", b"y\n")])]


def strange_names(rng: random.Random, folder: Path) -> list[bytes]:
    name = rng.choice(
        ["x\\000.py", "x\\n.py", "\\033[2J", "..\\\\..\\\\x", "\\056\\056/\\056\\056/x", "\\377\\376"]
    )
    return [
        quoted(f"toy/{name}", "new file mode 100644"),
        create("toy/\udcff\udcfe"),
        create("toy/\u202egnp.py"),
    ]


def strange_modes(rng: random.Random, folder: Path) -> list[bytes]:
    mode = rng.choice(["160000", "100777", "104755", "040000", "020666", "010644", "777777", "120777"])
    return [create("toy/new", mode=mode)]


def strange_targets(rng: random.Random, folder: Path) -> list[bytes]:
    target = rng.choice(
        ["a\nb/../../../x", "sub\0/../../..", "x" * 5000, "../" * 3000, "", "\x1b[2J", "\udcff"]
    )
    return [link("toy/l", target), create("toy/other")]


def loops(rng: random.Random, folder: Path) -> list[bytes]:
    size = rng.randint(1, 60)
    ring = b"".join(link(f"toy/r{n}", f"r{(n + 1) % size}") for n in range(size))
    return [ring, create("toy/r0/x")]


def many_links(rng: random.Random, folder: Path) -> list[bytes]:
    doubled = [link("toy/d0", "sub")]
    doubled += [
        link(f"toy/d{n}", f"d{n - 1}/../d{n - 1}/../d{n - 1}") for n in range(1, rng.choice([40, 300]))
    ]
    return doubled if rng.random() < 0.5 else [b"".join(doubled)]


def literal_bombs(rng: random.Random, folder: Path) -> list[bytes]:
    size = 1 << 26
    bomb = binary("toy/0.bin", "literal", bytes(size), size)
    count = rng.randint(3, 8)
    bombs = [bomb.replace(b"toy/0.bin", b"toy/%d.bin" % n) for n in range(count)]
    return bombs if rng.random() < 0.5 else [b"".join(bombs), binary("toy/x", "literal", bytes(1 << 28), 9)]


def delta_bombs(rng: random.Random, folder: Path) -> list[bytes]:
    delta = b"\x00" + b"\xff\xff\xff\x1f" + b"\x01A" * 10
    huge = b"\xff" * 9 + b"\x01" + b"\xff" * 9 + b"\x01"
    data = rng.choice([delta, huge, b"", b"\xff" * 3000])
    return [b"".join(binary(f"toy/{n}.bin", "delta", data, len(data)) for n in range(50))]


def huge_numbers(rng: random.Random, folder: Path) -> list[bytes]:
    number = rng.choice([2**31, 2**32 - 1, 2**63, 10**30, 10**5000])
    hunk = (
        f"@@ -{number % 10**20},1 +{number},2 @@\n" if number > 10**40 else f"@@ -{number},1 +{number},2 @@\n"
    )
    text = f"--- a/toy/both.py\n+++ b/toy/both.py\n{hunk} d\n+e\n"
    return [text.encode(), edit("toy/both.py", SOURCE, b"A\nb\n")]


def many_patches(rng: random.Random, folder: Path) -> list[bytes]:
    count = rng.choice([200, 1000])
    if rng.random() < 0.5:
        return [create(f"toy/n{number}") for number in range(count)]
    return [link("toy/l", "sub"), *(create(f"toy/l/{number}") for number in range(count))]


def copies(rng: random.Random, folder: Path) -> list[bytes]:
    big = create("toy/big", b"x" * 100 + b"\n") * 1
    text = "diff --git a/toy/big b/toy/c{0}\nsimilarity index 100%\ncopy from toy/big\ncopy to toy/c{0}\n"
    return [big, "".join(text.format(number) for number in range(rng.choice([100, 2000]))).encode()]


def pipes(rng: random.Random, folder: Path) -> list[bytes]:
    kind = rng.choice(["series", "patch", "series.toml", "device", "extra", "tree"])
    if kind in ("series", "series.toml"):
        (folder / kind).unlink(missing_ok=True)
        os.mkfifo(folder / kind)
    elif kind == "tree":
        for place in ("site", "release", "next"):
            (folder.parent / place / "toy" / "both.py").unlink()
            os.mkfifo(folder.parent / place / "toy" / "both.py")
            os.mkfifo(folder.parent / place / ".gitignore")
    elif kind == "device":
        (folder / "series").write_text("zero.patch\n0001-p.patch\n")
        (folder / "zero.patch").symlink_to("/dev/zero")
    else:
        (folder / "series").write_text("pipe.patch\n0001-p.patch\n" if kind == "patch" else "0001-p.patch\n")
        os.mkfifo(folder / "pipe.patch")
    return [create("toy/x"), edit("toy/both.py", SOURCE, b"A\n")]


def strange_lists(rng: random.Random, folder: Path) -> list[bytes]:
    line = rng.choice(
        [
            b"../outside/notes.patch",
            b"x" * 300,
            b"a\0b",
            b"\xff\xfe",
            b"0001-p.patch -R",
            b"0001-p.patch\n" * 3,
            b".",
        ]
    )
    (folder / "series").write_bytes(line + b"\n0001-p.patch\n")
    return [create("toy/x")]


def links_to_outside_patches(rng: random.Random, folder: Path) -> list[bytes]:
    (folder / "0000-out.patch").symlink_to("../outside/notes.patch")
    if rng.random() < 0.5:
        (folder / "series").symlink_to("../outside/notes.patch")
    return [create("toy/x")]


def strange_tables(rng: random.Random, folder: Path) -> list[bytes]:
    texts = [
        "a = " + "[" * 5000,
        "unneeded = 3",
        'package = "../x"\n',
        'version = "\\u0000"',
        "unneeded = {a = 1}",
    ]
    text = rng.choice([*texts, 'module = "../outside"\npackage = "toy"', 'commit = "--upload-pack=x"'])
    (folder / "series.toml").write_text(text)
    return [create("toy/x")]


def deep_headers(rng: random.Random, folder: Path) -> list[bytes]:
    parts = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (number, number)
        for number in range(1500)
    )
    mail = b"From 0 Mon Sep 17 00:00:00 2001\nSubject: x\nMIME-Version: 1.0\n" + parts
    lines = b"".join(b"X-F%d: v\n deeper\n" % number for number in range(20_000))
    subject = b"Description: " + b"(" * 50_000 + b"\n" + b" .\n" * 20_000
    head = rng.choice([mail, lines, subject, b"Subject: =?utf-8?q?" + b"=41" * 20_000 + b"?=\n"])
    if head is mail:
        (folder / "series").write_text("0000-m.patch\n")
        (folder / "0000-m.patch").write_bytes(mail + create("toy/x"))
        return []
    return [head + b"---\n" + create("toy/x")]


def lookalike_lines(rng: random.Random, folder: Path) -> list[bytes]:
    count = rng.choice([2_000, 20_000])
    many = b"x\n" * count
    miss = b" x\n" * (count // 2)
    hunk = b"@@ -5,%d +5,%d @@\n%s-y\n+z\n" % (count // 2 + 1, count // 2 + 1, miss)
    return [create("toy/many", many), b"--- a/toy/many\n+++ b/toy/many\n" + hunk]


ATTACKS: tuple[Attack, ...] = (
    chain_deleted_through,
    chain_over_patches,
    through_link_of_release,
    strange_lists,
    pipes,
    renames_of_links,
    links_to_outside_patches,
    delta_bombs,
    chain_bent_later,
    absolute_links,
    case_variants,
    reserved_paths,
    dots,
    strange_names,
    strange_modes,
    strange_targets,
    loops,
    literal_bombs,
    huge_numbers,
    many_patches,
    copies,
    many_links,
    strange_tables,
    deep_headers,
    lookalike_lines,
)
