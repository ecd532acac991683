"""Patches that try to write outside the target, hide a change, or break their reader.

Each is for a target whose ``toy/both.py`` has the lines a, b, c and d, and is refused for the rule it names.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

EDIT = b"@@ -1,4 +1,4 @@\n a\n-b\n+B\n c\n d\n"
BOTH = b"toy/both.py"


@dataclass(frozen=True)
class Hostile:
    name: str
    rule: str
    patch: bytes


def git(name: bytes, *header: bytes, new: bytes | None = None, old: bytes | None = None) -> bytes:
    lines = [b"diff --git a/%s b/%s" % (old or name, new or name), *header]
    return b"\n".join(lines) + b"\n"


def quoted(name: bytes, *header: bytes) -> bytes:
    return b"\n".join([b'diff --git "a/%s" "b/%s"' % (name, name), *header]) + b"\n"


def edit(name: bytes = BOTH, hunks: bytes = EDIT, *header: bytes) -> bytes:
    return git(name, *header, b"--- a/" + name, b"+++ b/" + name) + hunks


def create(name: bytes, mode: bytes = b"100644", content: bytes = b"x\n") -> bytes:
    header = git(name, b"new file mode " + mode, b"--- /dev/null", b"+++ b/" + name)
    mark = b"" if content.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    return header + b"@@ -0,0 +1 @@\n+" + content + mark


def link(name: bytes, target: bytes) -> bytes:
    return create(name, b"120000", target)


def binary_lines(data: bytes) -> bytes:
    """Return the lines of a `GIT binary patch` that has ``data``."""
    body = b""
    packed = zlib.compress(data, 9)
    for start in range(0, len(packed), 52):
        part = packed[start : start + 52]
        letter = bytes([64 + len(part) if len(part) <= 26 else 70 + len(part)])
        body += letter + base64.b85encode(part + bytes(-len(part) % 4)) + b"\n"
    return body


def binary(method: bytes, size: int, data: bytes) -> bytes:
    ids = b"index " + b"0" * 40 + b".." + b"1" * 40
    head = git(b"toy/data.bin", b"new file mode 100644", ids) + b"GIT binary patch\n"
    return head + b"%s %d\n" % (method, size) + binary_lines(data) + b"\n"


def cases() -> list[Hostile]:
    """Return all of them."""
    renamed = git(BOTH, b"rename from " + BOTH, b"rename to ../stolen.py", new=b"../stolen.py")
    found = [
        # --- writing outside the target
        ("absolute-name", "absolute-path", create(b"/etc/cron.d/x")),
        ("absolute-traditional", "absolute-path", b"--- /etc/passwd\n+++ /etc/passwd\n" + EDIT),
        ("absolute-new-side", "absolute-path", b"--- a/toy/both.py\n+++ /srv/toy/both.py\n" + EDIT),
        ("up", "outside-path", create(b"../outside")),
        ("up-later", "outside-path", create(b"toy/../../outside")),
        ("up-in-octal", "outside-path", quoted(b"toy/\\056\\056/\\056\\056/o", b"new file mode 100644")),
        ("up-by-rename", "outside-path", renamed),
        ("up-by-copy", "outside-path", renamed.replace(b"rename", b"copy").replace(b"stolen", b"copied")),
        (
            "up-as-source",
            "outside-path",
            git(BOTH, b"rename from ../secret", b"rename to toy/x", old=b"../secret"),
        ),
        ("up-to-delete", "outside-path", git(b"../victim", b"deleted file mode 100644")),
        ("up-to-change", "outside-path", edit(b"../changed.py")),
        ("up-traditional", "outside-path", b"--- a/../t\n+++ b/../t\n" + EDIT),
        ("dot", "outside-path", create(b"./x")),
        ("nul-in-name", "outside-path", quoted(b"toy/x\\000.py", b"new file mode 100644")),
        ("line-feed-in-name", "outside-path", quoted(b"toy/x\\n.py", b"new file mode 100644")),
        ("escape-in-name", "outside-path", quoted(b"toy/\\033[2J", b"new file mode 100644")),
        ("hook", "git-path", create(b".git/hooks/post-checkout", b"100755")),
        ("hook-below", "git-path", create(b"toy/.git/hooks/post-checkout", b"100755")),
        ("git-capital", "git-path", create(b".GIT/config")),
        ("git-blank", "git-path", create(b".git /config")),
        ("git-dot", "git-path", create(b".git./config")),
        ("git-short-name", "git-path", create(b"GIT~1/config")),
        ("git-stream", "git-path", create(b".git::$INDEX_ALLOCATION/config")),
        ("git-ignored-character", "git-path", quoted(b".g\\342\\200\\214it/config", b"new file mode 100644")),
        ("ledger", "git-path", create(b".vimectl/ledger.json")),
        ("link-absolute", "symlink-outside", link(b"toy/link", b"/etc")),
        ("link-up", "symlink-outside", link(b"toy/link", b"../../etc")),
        ("link-up-and-back", "symlink-outside", link(b"toy/link", b"sub/../../../x")),
        ("link-into-git", "symlink-outside", link(b"toy/link", b"../.git/config")),
        ("link-with-nul", "symlink-outside", link(b"toy/link", b"both.py\0/../x")),
        (
            "link-bent",
            "symlink-outside",
            edit(b"toy/link", b"@@ -1 +1 @@\n-both.py\n+/etc/shadow\n", b"index 1234567..2345678 120000"),
        ),
        (
            "link-for-file",
            "symlink-outside",
            git(BOTH, b"deleted file mode 100644") + link(BOTH, b"/etc/hosts"),
        ),
        ("through-link", "symlink-through", link(b"toy/link", b"sub") + create(b"toy/link/x")),
        ("through-link-first", "symlink-through", create(b"toy/a/b") + link(b"toy/a", b"sub")),
        (
            "through-link-by-rename",
            "symlink-through",
            link(b"toy/way", b"sub")
            + git(BOTH, b"rename from " + BOTH, b"rename to toy/way/x", new=b"toy/way/x"),
        ),
        # --- unexpected files
        ("set-uid", "set-uid", create(b"toy/su", b"104755")),
        ("set-gid", "set-uid", git(BOTH, b"old mode 100644", b"new mode 102755")),
        ("sticky", "set-uid", edit(BOTH, EDIT, b"index 1234567..2345678 101644")),
        ("submodule", "mode", create(b"toy/sub", b"160000", b"Subproject commit 0")),
        ("folder", "mode", create(b"toy/folder", b"040000")),
        ("device", "mode", create(b"toy/null", b"020666")),
        ("pipe", "mode", create(b"toy/pipe", b"010644")),
        ("mode-in-words", "inconsistent-header", git(BOTH, b"old mode 100644", b"new mode rwxr-xr-x")),
        # --- binary data
        (
            "binary-bare",
            "binary-without-data",
            git(BOTH, b"index 1234567..2345678") + b"Binary files a/toy/both.py and b/toy/both.py differ\n",
        ),
        (
            "binary-bare-twice",
            "binary-without-data",
            git(b"toy/x", b"new file mode 100644") + b"Files a and b differ\n",
        ),
        (
            "binary-nothing",
            "corrupt-binary",
            git(b"toy/n", b"new file mode 100644") + b"GIT binary patch\n\n",
        ),
        ("binary-bomb", "corrupt-binary", binary(b"literal", 10, bytes(1 << 26))),
        ("binary-more", "corrupt-binary", binary(b"literal", 300, b"some data")),
        ("binary-huge", "corrupt-binary", binary(b"literal", 9_999_999_999, b"x")),
        ("binary-cut", "corrupt-binary", binary(b"literal", 9, b"some data").rstrip(b"\n")),
        (
            "binary-no-base85",
            "corrupt-binary",
            binary(b"delta", 5, b"abcde").replace(b"zc", b"\x01\x02")[:-1] + b'"\n',
        ),
        # --- hunks
        ("count-high", "hunk-count", edit(hunks=EDIT.replace(b"-1,4", b"-1,5")) + edit(b"toy/other.py")),
        ("count-low", "hunk-count", edit(hunks=EDIT.replace(b"+1,4", b"+1,4") + b"+import os\n")),
        ("count-absurd", "corrupt-header", edit(hunks=EDIT.replace(b"-1,4", b"-1,99999999999"))),
        ("nothing-changed", "empty-hunk", edit(hunks=b"@@ -1,2 +1,2 @@\n a\n b\n")),
        ("no-file", "orphan-hunk", EDIT + edit()),
        ("cut-in-change", "truncated", edit()[:-8]),
        ("cut-in-context", "lost-context", edit()[:-6]),
        ("cut-in-line", "no-final-newline", edit()[:-1]),
        ("overlap", "hunk-overlap", edit(hunks=EDIT + b"@@ -3,2 +3,2 @@\n c\n-d\n+D\n")),
        ("order", "hunk-order", edit(hunks=b"@@ -3,2 +3,2 @@\n c\n-d\n+D\n@@ -1,2 +1,2 @@\n-a\n+A\n b\n")),
        ("deleted-and-changed", "duplicate-file", git(BOTH, b"deleted file mode 100644") + edit()),
        ("created-twice", "duplicate-file", create(b"toy/new.py") + create(b"toy/new.py")),
        (
            "moved-twice",
            "duplicate-file",
            edit() + git(BOTH, b"rename from " + BOTH, b"rename to toy/z", new=b"toy/z"),
        ),
        ("created-with-past", "created-from-something", git(b"toy/new", b"new file mode 100644") + EDIT),
        ("deleted-with-rest", "deleted-leaves-something", git(BOTH, b"deleted file mode 100644") + EDIT),
        (
            "mark-in-the-middle",
            "newline-mark",
            edit(hunks=EDIT.replace(b" a\n", b" a\n\\ No newline at end of file\n")),
        ),
        ("wrapped", "wrapped-line", edit(hunks=EDIT.replace(b" c\n", b" c\nand the rest of it\n"))),
        # --- headers
        (
            "two-names",
            "inconsistent-name",
            git(BOTH, b"--- a/toy/both.py", b"+++ b/toy/both.py", b"--- a/toy/x.py") + EDIT,
        ),
        (
            "null-without-creation",
            "inconsistent-name",
            git(BOTH, b"new file mode 100644", b"--- a/toy/both.py") + EDIT,
        ),
        (
            "moved-and-created",
            "inconsistent-header",
            git(BOTH, b"new file mode 100644", b"rename from " + BOTH, b"rename to x"),
        ),
        ("half-a-rename", "no-name", git(BOTH, b"rename from " + BOTH, new=b"toy/z")),
        ("nameless", "no-name", b"diff --git a b\nold mode 100644\nnew mode 100755\n"),
        ("nameless-traditional", "no-name", b"--- both.py\n+++ a/\n" + EDIT),
        ("header-only", "empty-diff", edit() + git(b"toy/next.py", b"index 1234567..2345678")),
        (
            "merge",
            "combined-diff",
            b"diff --cc toy/x.py\n--- a/toy/x.py\n+++ b/toy/x.py\n@@@ -1,1 -1,1 +1,1 @@@\n--a\n++b\n"
            + edit(),
        ),
        ("line-only", "empty-diff", edit() + git(b"toy/next.py")),
        # --- not a patch
        ("empty", "no-diff", b""),
        ("zeros", "no-diff", bytes(100_000)),
        ("html", "no-diff", b"<!DOCTYPE html>\n<title>404</title>\n"),
        ("many-lines", "too-large", edit() + b"\n" * 200_000),
        ("large", "too-large", edit() + b"#" * (8 << 20)),
    ]
    return [Hostile(*one) for one in found]
