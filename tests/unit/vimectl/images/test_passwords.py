"""Passwords in URLs reach no image, document, log or command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.images.fake_builder import FakeBuilder
from harness.images.user_stack import UserStack
from vimectl.cli import run_cli
from vimectl.images.builders import Builder
from vimectl.util.host import Host

PASSWORD = "hunter2"


def vimectl(*arguments: str | Path) -> int:
    return run_cli([*map(str, arguments)])


def of_repository(own: UserStack) -> None:
    url = f"https://me:{PASSWORD}@host.invalid/trainer"
    own.file.write_text(own.file.read_text().replace(str(own.repository), url))


def token_of_repository(own: UserStack) -> None:
    url = f"https://{PASSWORD}@host.invalid/trainer"
    own.file.write_text(own.file.read_text().replace(str(own.repository), url))


def of_index_in_lock(own: UserStack) -> None:
    lock = own.file.with_suffix(".txt")
    lock.write_text(f"--index-url https://me:{PASSWORD}@host.invalid/simple\n{lock.read_text()}")


def of_index_in_comment_of_lock(own: UserStack) -> None:
    lock = own.file.with_suffix(".txt")
    lock.write_text(f"# uv pip compile --index https://me:{PASSWORD}@host.invalid/simple\n{lock.read_text()}")


PLACES = (of_repository, token_of_repository, of_index_in_lock, of_index_in_comment_of_lock)


@pytest.mark.parametrize("command", ["plan", "vendor", "build"])
@pytest.mark.parametrize("place", PLACES)
def test_password_in_a_source_is_refused(
    place: object, command: str, own: UserStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(place)
    place(own)
    more = [] if command == "plan" else ["--offline", tmp_path / "offline"]
    assert vimectl("image", command, "--stack", own.file, *more, "--json") == 2
    output = capsys.readouterr()
    assert PASSWORD not in output.out + output.err
    assert "has a URL with a password" in json.loads(output.out)["error"]["message"]
    assert not (tmp_path / "offline").exists()


def test_user_of_ssh_is_no_password(own: UserStack, capsys: pytest.CaptureFixture[str]) -> None:
    own.file.write_text(own.file.read_text().replace(str(own.repository), "ssh://git@host.invalid/trainer"))
    assert vimectl("image", "plan", "--stack", own.file) == 0
    assert "ssh://git@host.invalid/trainer" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["git", "pip", "find-links"])
def test_password_of_the_users_configuration_is_not_shown(
    tool: str,
    own: UserStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = f"http://me:{PASSWORD}@127.0.0.1:9/x"
    if tool == "git":
        (tmp_path / "config").write_text(f'[url "{secret}"]\n\tinsteadOf = {own.repository}\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    else:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", secret if tool == "pip" else "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_FIND_LINKS", "" if tool == "pip" else secret)
    folder = tmp_path / "offline"
    assert vimectl("image", "vendor", "--stack", own.file, "--offline", folder) == 3
    output = capsys.readouterr()
    assert PASSWORD not in output.out + output.err
    assert [
        path for path in folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ] == []


def test_builder_gets_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password of a proxy would be in the environment of every step."""
    fake = FakeBuilder(tmp_path, "buildah", "", monkeypatch)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@proxy.invalid")
    with (
        (tmp_path / "lock").open("w") as lock,
        Builder("buildah", Host()).build(fake.job(lock.fileno()), lambda line: None),
    ):
        pass
    (build,) = [call for call in fake.calls() if call[0] == "build"]
    assert "--http-proxy=false" in build
    assert PASSWORD not in json.dumps(fake.calls())


@pytest.mark.parametrize("name", ["build.log", "sbom.json", "provenance.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_records_are_regular_files(
    kind: str,
    name: str,
    own: UserStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    FakeBuilder(tmp_path, "buildah", 'sys.exit(arguments[0] != "--version")\n', monkeypatch)
    records, outside = tmp_path / "records", tmp_path / "outside"
    records.mkdir()
    outside.write_text("mine")
    path = records / name
    {"link": lambda: path.symlink_to(outside), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    arguments = ["--offline", tmp_path / "none", "--builder", "buildah", "--records", records]
    assert vimectl("image", "build", "--stack", own.file, *arguments) == 2
    assert str(path) in capsys.readouterr().err
    assert outside.read_text() == "mine"
