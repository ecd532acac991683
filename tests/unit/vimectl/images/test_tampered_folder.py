"""Source folders that were tampered with: each is refused before the builder runs, and the file is named."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import VimeError

from harness.git import commit, git
from harness.images.fake_builder import FakeBuilder
from harness.images.user_stack import UserStack
from harness.wheels import write_wheel
from vimectl import __version__
from vimectl.cli import run_cli
from vimectl.env import vimectl_wheel
from vimectl.images import build, vendor
from vimectl.images.manifest import FILE
from vimectl.images.plan import ImagePlan, make_plan

WHEEL = "wheels/weights-1.0-py3-none-any.whl"


@dataclass(frozen=True)
class Folder:
    """A source folder and what an attacker can do with it. ``outside`` has files that must not change."""

    path: Path
    plan: ImagePlan
    outside: Path

    def entry(self, path: str) -> list[dict[str, object]]:
        return [one for one in self.read()["sources"] if one["path"] == path]

    @property
    def archive(self) -> str:
        return next(source.path for source in self.plan.sources if source.kind == "git")

    @property
    def own_wheel(self) -> str:
        return next(one["path"] for one in self.read()["sources"] if one["kind"] == "own-wheel")

    def read(self) -> dict[str, list[dict[str, object]]]:
        return json.loads((self.path / FILE).read_text())

    def write(self, document: object) -> None:
        (self.path / FILE).write_text(json.dumps(document, indent=2) + "\n")

    def change(self, path: str, /, **values: object) -> None:
        """Change the entries of a file in the manifest."""
        document = self.read()
        for one in document["sources"]:
            if one["path"] == path:
                one |= values
        self.write(document)

    def list_again(self, path: str) -> None:
        """Put the digest and size that a file has now into the manifest."""
        file = self.path / path
        self.change(path, size=file.stat().st_size, sha256=sha256_file(file))

    def rewrite_archive(self, change: Callable[[dict[str, tuple[tarfile.TarInfo, bytes]]], object]) -> None:
        """Change the members of the archive, by name without its first folder, and the manifest."""
        members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
        with tarfile.open(self.path / self.archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                name = "commit" if member.name.endswith(".commit") else member.name.partition("/")[2]
                members[name] = (member, content.read() if content else b"")
        change(members)
        with tarfile.open(self.path / self.archive, "w:gz", format=tarfile.GNU_FORMAT) as tar:
            for member, content in members.values():
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        self.list_again(self.archive)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(f"top/{name}")
    member.type, member.linkname = kind, link
    return member, b""


def _append(folder: Folder, path: str) -> None:
    with (folder.path / path).open("ab") as file:
        file.write(b"#")


def _both(folder: Folder, path: str) -> None:
    _append(folder, path)
    folder.list_again(path)


def _in_place_of(folder: Folder, path: str, make: Callable[[Path], object]) -> None:
    shutil.move(folder.path / path, folder.outside / "moved")
    make(folder.path / path)


def _other_repository(folder: Folder) -> None:
    """Replace the archive by that of another commit, which is genuine."""
    other = folder.outside / "other"
    other.mkdir()
    (other / "setup.py").write_text("import evil\n")
    found = commit(other)
    name = Path(folder.archive).name.removesuffix(".tar.gz")
    with tarfile.open(folder.path / folder.archive, "w:gz") as tar:
        for path, content in (
            (f"{name}.commit", git(other, "cat-file", "commit", found)),
            (f"{name}/setup.py", b"import evil\n"),
        ):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    folder.list_again(folder.archive)


def _other_tree_in_commit_object(members: dict[str, tuple[tarfile.TarInfo, bytes]]) -> None:
    member, content = members["commit"]
    members["commit"] = (member, content.replace(content[5:45], b"4b825dc642cb6eb9a060e54bf8d69288fbee4904"))
    for name in set(members) - {"commit"}:
        del members[name]


def _replace(name: str, content: bytes) -> Callable[[dict[str, tuple[tarfile.TarInfo, bytes]]], object]:
    return lambda members: members.update({name: (members[name][0], content)})


def _chmod(members: dict[str, tuple[tarfile.TarInfo, bytes]]) -> None:
    members["package/__init__.py"][0].mode = 0o755


def _swap_wheel(folder: Folder) -> None:
    """Replace a wheel, the lock and the manifest alike."""
    (folder.path / WHEEL).unlink()
    write_wheel(folder.path / "wheels", "weights", files={"evil.py": b""})
    (folder.path / "wheels.txt").write_text(
        f"weights==1.0 --hash=sha256:{sha256_file(folder.path / WHEEL)}\n"
    )
    folder.list_again(WHEEL)
    folder.list_again("wheels.txt")


def _twice(folder: Folder) -> None:
    document = folder.read()
    document["sources"] += folder.entry(WHEEL)
    folder.write(document)


def _huge(folder: Folder, listed: bool) -> None:
    with (folder.path / WHEEL).open("r+b") as file:
        file.truncate(2**40)
    if listed:
        folder.change(WHEEL, size=2**40)


def _bomb(folder: Folder) -> None:
    """A header of a long name of 255 MiB, of a small archive."""
    header = tarfile.TarInfo("top/x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 255 * 2**20
    with gzip.open(folder.path / folder.archive, "wb", 1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(255):
            file.write(bytes(2**20))
    folder.list_again(folder.archive)


def _link_folder(folder: Folder) -> None:
    _in_place_of(folder, "wheels", lambda path: path.symlink_to(folder.outside / "moved"))


# What is done to a folder, and what the message says.
TAMPERED: dict[str, tuple[Callable[[Folder], object], str]] = {
    "wheel changed": (lambda f: _append(f, WHEEL), WHEEL),
    "wheel and manifest changed": (lambda f: _both(f, WHEEL), f"{WHEEL} has sha256"),
    "wheel, lock and manifest changed": (_swap_wheel, "wheels.txt has sha256"),
    "lock and manifest changed": (lambda f: _both(f, "wheels.txt"), "wheels.txt has sha256"),
    "stack and manifest changed": (lambda f: _both(f, "stack.toml"), "stack.toml has sha256"),
    "own wheel and manifest changed": (
        lambda f: _both(f, f.own_wheel),
        "vimectl-{version}-py3-none-any.whl has sha256",
    ),
    "archive and manifest changed": (lambda f: _both(f, f.archive), "{archive}"),
    "archive of another commit": (_other_repository, "{archive} is not the archive of"),
    "file in archive changed": (
        lambda f: f.rewrite_archive(_replace("package/__init__.py", b"version = 3\n")),
        "{archive} has the files of tree",
    ),
    "mode in archive changed": (lambda f: f.rewrite_archive(_chmod), "{archive} has the files of tree"),
    "file in archive removed": (
        lambda f: f.rewrite_archive(lambda m: m.pop("build.sh")),
        "{archive} has the",
    ),
    "file in archive added": (
        lambda f: f.rewrite_archive(lambda m: m.update(x=_member("x"))),
        "{archive} has the files of tree",
    ),
    "file in archive twice": (
        lambda f: f.rewrite_archive(lambda m: m.update(again=m["build.sh"])),
        "two entries for build.sh",
    ),
    "file in archive leads out": (
        lambda f: f.rewrite_archive(lambda m: m.update(x=_member("../../x"))),
        "{archive}",
    ),
    "link in archive leads out": (
        lambda f: f.rewrite_archive(lambda m: m.update(x=_member("x", tarfile.SYMTYPE, "../../x"))),
        "x is a link out of it",
    ),
    "hard link in archive": (
        lambda f: f.rewrite_archive(lambda m: m.update(x=_member("x", tarfile.LNKTYPE, "/etc/passwd"))),
        "of type b'1'",
    ),
    "device in archive": (
        lambda f: f.rewrite_archive(lambda m: m.update(x=_member("x", tarfile.CHRTYPE))),
        "of type b'3'",
    ),
    "commit object changed": (
        lambda f: f.rewrite_archive(_other_tree_in_commit_object),
        "its first file is not the object of that commit",
    ),
    "commit object missing": (lambda f: f.rewrite_archive(lambda m: m.pop("commit")), "is not the object"),
    "commit in manifest changed": (lambda f: f.change(f.archive, commit="1" * 40), "what it says of trainer"),
    "URL in manifest changed": (lambda f: f.change(f.archive, url="https://x"), "what it says of trainer"),
    "archive unpacks to much": (_bomb, "of type b'L'"),
    "archive ends early": (
        lambda f: [os.truncate(f.path / f.archive, 300), f.list_again(f.archive)],
        "{archive} is not the archive of",
    ),
    "digest in manifest changed": (lambda f: f.change(f.archive, sha256="0" * 64), "what it says of trainer"),
    "reason in manifest changed": (lambda f: f.change(WHEEL, reason="none"), "what it says of weights"),
    "source listed twice": (_twice, "the number or order of its entries"),
    "file missing": (lambda f: (f.path / WHEEL).unlink(), "wheels/weights-1.0 is missing"),
    "manifest missing": (lambda f: (f.path / FILE).unlink(), "no manifest.json"),
    "manifest nested deeply": (
        lambda f: (f.path / FILE).write_text("[" * 100_000),
        "manifest.json: cannot be read",
    ),
    "extra wheel": (lambda f: (f.path / "wheels/evil.whl").touch(), "wheels/evil.whl is not in"),
    "extra file": (lambda f: (f.path / "pip.conf").touch(), "pip.conf is not in the manifest"),
    "extra folder": (lambda f: (f.path / "sources/x").mkdir(), "sources/x is not in the manifest"),
    "extra file of other case": (lambda f: (f.path / "Stack.toml").touch(), "Stack.toml is not in"),
    "wheel of other case": (
        lambda f: (f.path / WHEEL).rename(f.path / WHEEL.replace("weights", "Weights")),
        "what it says of weights",
    ),
    "wheel under the name of another": (
        lambda f: [
            (f.path / WHEEL).rename(f.path / "wheels/torch-2.0-py3-none-any.whl"),
            f.change(WHEEL, path="wheels/torch-2.0-py3-none-any.whl"),
        ],
        "wheels/torch-2.0-py3-none-any.whl is not in the manifest",
    ),
    "path leads out": (lambda f: f.change(WHEEL, path="../weights"), "what it says of weights"),
    "link to a file": (
        lambda f: _in_place_of(f, WHEEL, lambda path: path.symlink_to(f.outside / "moved")),
        f"{WHEEL} cannot be used: is a symbolic link",
    ),
    "link to a folder": (_link_folder, "wheels: a folder is a symbolic link"),
    "link to the manifest": (
        lambda f: _in_place_of(f, FILE, lambda path: path.symlink_to(f.outside / "moved")),
        "manifest.json: cannot be read",
    ),
    "hard link": (
        lambda f: os.link(f.path / WHEEL, f.outside / "same"),
        f"{WHEEL} is a hard link",
    ),
    "named pipe": (lambda f: _in_place_of(f, WHEEL, os.mkfifo), f"{WHEEL} cannot be used: not a regular"),
    "named pipe as manifest": (lambda f: _in_place_of(f, FILE, os.mkfifo), "manifest.json: cannot be read"),
    "huge file": (lambda f: _huge(f, listed=False), f"{WHEEL} has {2**40} bytes"),
    "huge file and manifest": (lambda f: _huge(f, listed=True), f"{WHEEL} has {2**40} bytes"),
    "folder in place of a file": (
        lambda f: _in_place_of(f, WHEEL, lambda path: path.mkdir()),
        f"{WHEEL} cannot be used",
    ),
}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the folder of the first test stays, because collecting takes seconds."""
    return tmp_path_factory.mktemp("collected") / "offline"


@pytest.fixture
def folder(own: UserStack, collected: Path, tmp_path: Path) -> Folder:
    """A genuine folder of the test, copied from the first one: the commit and the wheel are the same."""
    made = make_plan(str(own.file))
    path = tmp_path / "offline"
    if collected.exists():
        shutil.copytree(collected, path)
        document = json.loads((path / FILE).read_text())
        for one in document["sources"]:
            for source in made.sources:
                if (source.kind, source.name) != (one["kind"], one["name"]):
                    continue
                one["url"] = source.url
                if source.content is not None:
                    (path / source.path).write_bytes(source.content)
                    one |= {"size": len(source.content), "sha256": source.sha256[0]}
        (path / FILE).write_text(json.dumps(document, indent=2) + "\n")
    else:
        vendor.collect(made, path, lambda now: None)
        shutil.copytree(path, collected)
    (tmp_path / "outside").mkdir()
    return Folder(path, made, tmp_path / "outside")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    """A builder that records that it was called for a build, and fails."""
    (tmp_path / "fake").mkdir()
    monkeypatch.chdir(tmp_path)
    return FakeBuilder(tmp_path / "fake", "buildah", 'sys.exit(arguments[0] != "--version")\n', monkeypatch)


@pytest.mark.parametrize("kind", TAMPERED)
def test_tampered_folder_is_refused(
    kind: str, own: UserStack, folder: Folder, fake: FakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper, message = TAMPERED[kind]
    archive = folder.archive
    tamper(folder)
    arguments = ["--stack", str(own.file), "--offline", str(folder.path), "--builder", "buildah", "--json"]
    code = run_cli(["image", "build", *arguments])
    assert fake.calls() == [["--version"]], "the builder ran"
    found = json.loads(capsys.readouterr().out)["error"]
    assert code in (1, 2)
    assert message.format(archive=archive, version=__version__) in found["message"]
    assert "collect" in found["hint"] or "image vendor" in found["hint"]


def test_genuine_folder_is_copied(own: UserStack, folder: Folder, tool: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    build.check_for_plan(folder.path, folder.plan, tool, copy)
    assert _contents(copy) == _contents(folder.path)


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.exhaustive)])
def test_swaps_during_the_check_change_nothing(
    count: int, folder: Folder, tool: Path, tmp_path: Path
) -> None:
    """A file, its folder and links alternate while the folder is checked and copied."""
    genuine = _contents(folder.path)
    wheels, aside, evil = folder.path / "wheels", folder.outside / "aside", folder.outside / "evil"
    write_wheel(evil, "weights", files={"evil.py": b""})
    good = (folder.path / WHEEL).read_bytes()
    stop = threading.Event()

    def swap() -> None:
        fresh = folder.outside / "fresh"
        while not stop.is_set():
            fresh.write_bytes((evil / Path(WHEEL).name).read_bytes())
            fresh.replace(folder.path / WHEEL)
            with (folder.path / WHEEL).open("r+b") as file:  # in place
                file.write(good)
                file.truncate()
            fresh.write_bytes(good)
            fresh.replace(folder.path / WHEEL)
            wheels.rename(aside)
            wheels.symlink_to(evil)
            wheels.unlink()
            aside.rename(wheels)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        copied = refused = 0
        while copied + refused < count:
            copy = tmp_path / f"copy-{copied + refused}"
            copy.mkdir()
            try:
                build.check_for_plan(folder.path, folder.plan, tool, copy)
            except VimeError:
                refused += 1
            else:
                copied += 1
                assert _contents(copy) == genuine
            shutil.rmtree(copy)
    finally:
        stop.set()
        thread.join()
    assert refused


def test_relative_folder(
    own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vimectl_wheel, "make_wheel", _MAKE_WHEEL)
    monkeypatch.chdir(tmp_path)
    code = run_cli(["image", "vendor", "--stack", str(own.file), "--offline", "offline"])
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "offline" / FILE).is_file()


_MAKE_WHEEL = vimectl_wheel.make_wheel


def test_links_in_a_folder_are_not_followed_when_it_is_collected(own: UserStack, folder: Folder) -> None:
    (folder.path / "wheels/other.whl").symlink_to(folder.outside / "other.whl")
    (folder.outside / "other.whl").write_text("kept")
    os.mkfifo(folder.path / "wheels/pipe.whl")
    vendor.collect(folder.plan, folder.path, lambda now: None)
    assert (folder.outside / "other.whl").read_text() == "kept"
    assert [path.name for path in (folder.path / "wheels").iterdir()] == [Path(WHEEL).name]
    _link_folder(folder)
    before = _contents(folder.outside)
    with pytest.raises(VimeError, match="wheels is not a folder"):
        vendor.collect(folder.plan, folder.path, lambda now: None)
    assert _contents(folder.outside) == before


def _contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in folder.rglob("*") if p.is_file()}
