"""Change targets of other users and of a group; each user is a real one."""

from __future__ import annotations

import json
import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
from vime_runtime.spec.errors import VimeError

from harness.other_users import User, give
from harness.patches import disk_operations
from harness.patches.toy_packages import unpack
from vimectl.patches import command, transaction
from vimectl.patches.plan import PatchAction
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import find_at

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def open_memory(memory: Path) -> Path:
    """Return a directory that every user may enter."""
    memory.chmod(0o755)
    return memory


@pytest.fixture
def owner(open_memory: Path) -> User:
    user = User(12345, 54321, open_memory / "owner")
    give(user, user.home)
    return user


@pytest.fixture
def member(open_memory: Path) -> User:
    """Return another member of the owner's group."""
    user = User(12346, 54321, open_memory / "member")
    give(user, user.home)
    return user


def change(action: PatchAction, site: Path, one: Series) -> str:
    target = find_at(site, "toy", "toy")
    assert target
    (status,) = command.change(action, [classify(target, one)]).targets
    return status.state


def everything(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path)] = status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("swapped", [".vimectl/stage", ".vimectl", "toy", "toy_cpu-1.0.dist-info", ""])
def test_root_writes_nothing_where_the_owner_leads_it(
    open_memory: Path,
    owner: User,
    toy_series: Series,
    swapped: str,
    rounds: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The owner swaps a folder of the target for a link to a folder of root, in a loop."""
    secret = open_memory / "secret"
    secret.mkdir(mode=0o700)
    for name in ("stage", "toy"):
        (secret / name).mkdir()
    shutil.copy(unpack(open_memory / "release") / "toy" / "both.py", secret / "toy" / "both.py")
    site = owner.home / "site"
    place = site / swapped if swapped else site
    aside = place.with_name("aside")

    def swap() -> None:
        place.rename(aside)
        place.symlink_to(secret)
        time.sleep(0.003)
        place.unlink()
        aside.rename(place)

    before = everything(secret)
    outcomes: list[str] = []
    for _ in range(rounds):
        shutil.rmtree(site, ignore_errors=True)
        aside.unlink(missing_ok=True) if aside.is_symlink() else shutil.rmtree(aside, ignore_errors=True)
        unpack(site)
        give(owner, site)
        target = find_at(site, "toy", "toy")
        assert target
        with owner.repeating(swap):
            for action in ("apply", "revert"):
                try:
                    outcome = command.change(action, [classify(target, toy_series)])
                    outcomes.append(outcome.targets[0].state)
                except (VimeError, OSError) as e:
                    outcomes.append(type(e).__name__)
        if place.is_symlink():
            place.unlink()
        assert everything(secret) == before, outcomes
    with capsys.disabled():
        print(f"\n{swapped or 'the target'} swapped in {rounds} rounds: {outcomes}")


def shared_install(owner: User) -> Path:
    """Make a copy of the package that the group of its owner can write to."""
    site = owner.home / "site"
    owner.home.chmod(0o755)
    unpack(site)
    give(owner, site)
    for path in (site, *site.rglob("*")):
        path.chmod(0o2775 if path.is_dir() else 0o664)
    return site


def test_group_patches_and_reverts_a_shared_install(
    open_memory: Path, owner: User, member: User, toy_series: Series
) -> None:
    site = shared_install(owner)
    release = {str(path): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert member.do(lambda: change("apply", site, toy_series)) == "applied"
    assert owner.do(lambda: change("revert", site, toy_series)) == "pristine"
    assert owner.do(lambda: change("apply", site, toy_series)) == "applied"
    patched = (site / "toy" / "both.py").stat()
    assert (patched.st_uid, patched.st_gid, patched.st_mode & 0o7777) == (owner.uid, owner.gid, 0o664)
    assert member.do(lambda: change("revert", site, toy_series)) == "pristine"
    reverted = (site / "toy" / "both.py").stat()
    # A file that is replaced belongs to who replaced it; group and mode stay.
    assert (reverted.st_uid, reverted.st_gid, reverted.st_mode & 0o7777) == (member.uid, owner.gid, 0o664)
    assert {str(path): path.read_bytes() for path in site.rglob("*") if path.is_file()} == release


def test_unfinished_change_of_another_user_is_not_executed(
    open_memory: Path, owner: User, member: User, toy_series: Series
) -> None:
    site = shared_install(owner)
    journal = site / ".vimectl" / "journal.json"
    point = 60
    while not journal.exists():
        point += 5
        owner.do(lambda: transaction.recover(site))
        owner.do(partial(disk_operations.die_at, point, lambda: change("apply", site, toy_series)))
    before = everything(site)
    for answer in (
        member.do(lambda: transaction.recover(site)),
        member.do(lambda: change("apply", site, toy_series)),
        User(0, 0, open_memory / "root").do(lambda: transaction.recover(site)),
    ):
        assert answer.startswith("CheckFailed"), answer
        assert "an unfinished change of the user with the id 12345, which only" in answer
        assert f"vimectl patch recover --target {site}" in answer
    assert everything(site) == before
    # A home that is new, as in another container: the record is lost, and so is the proof.
    moved = owner._replace(home=open_memory / "new home")
    give(owner, moved.home)
    answer = moved.do(lambda: transaction.recover(site))
    assert "this user did not begin" in answer
    assert f"remove {site}/.vimectl, and reinstall the package" in answer
    assert everything(site) == before
    assert owner.do(lambda: transaction.recover(site)).endswith("an interrupted apply was finished")
    assert not list((owner.home / "state" / "vimectl" / "changes").iterdir())


def test_forged_journal_of_the_same_user_does_not_count(owner: User, toy_series: Series) -> None:
    site = owner.home / "site"
    unpack(site)
    (site / ".vimectl" / "stage").mkdir(parents=True)
    document = {
        "action": "apply",
        "forward": True,
        "token": "0" * 32,
        "roots": [],
        "moves": [],
        "folders": [],
    }
    (site / ".vimectl" / "journal.json").write_text(json.dumps(document))
    give(owner, site)
    before = everything(site)
    assert "this user did not begin" in owner.do(lambda: change("apply", site, toy_series))
    assert everything(site) == before


def test_state_folder_of_another_user_is_refused(owner: User, open_memory: Path, toy_series: Series) -> None:
    site = owner.home / "site"
    unpack(site)
    give(owner, site)
    other = owner._replace(home=open_memory / "other")
    (other.home / "state" / "vimectl" / "changes").mkdir(parents=True)
    os.chmod(other.home / "state" / "vimectl" / "changes", 0o777)
    answer = other.do(lambda: change("apply", site, toy_series))
    assert "other users can write to it" in answer
    assert "XDG_STATE_HOME=DIR" in answer
    assert not (site / ".vimectl").exists()
