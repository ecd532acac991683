"""Find the packages that a stack pins to a commit, and which version and commit is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimectl.doctor.facts.packages import module_of
from vimectl.stacks.installed import distributions
from vimectl.stacks.schema import PinnedPackage, Stack
from vimectl.util import git
from vimectl.util.dist_info import canonical_name, editable_source, parse_direct_url
from vimectl.util.host import Host

_GIT_SECONDS = 10
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class PinnedSource:
    """The installed source of a pinned package. ``version`` and ``commit`` are empty if nothing says them.

    ``directory`` is the checkout that Python imports it from; empty for a package in site-packages. ``how``
    says why that one is imported. ``present`` is false if the directory does not have the package.
    ``descends`` is true if the commit has the pinned one among its ancestors.
    """

    version: str
    commit: str
    directory: str = ""
    how: str = ""
    present: bool = True
    descends: bool = False


def read_pinned_source(host: Host, stack: Stack, name: str) -> PinnedSource | None:
    """Return what is there of ``[commits.NAME]``, or None. The first found of these is imported:

    the directory of the project file's ``[targets]``, an entry of PYTHONPATH, the installed distribution.
    """
    pin = stack.commits[name]
    module = module_of(pin.distribution).replace(".", "/")
    targets = [stack.targets[key] for key in (pin.distribution, name) if key in stack.targets]
    if targets:
        return _checkout(host, targets[0], pin, module, "[targets]")
    entries = filter(None, host.environment.get("PYTHONPATH", "").split(":"))
    if on_path := next((entry for entry in entries if host.is_dir(f"{entry}/{module}")), None):
        return _checkout(host, on_path.rstrip("/"), pin, module, "PYTHONPATH")
    items = distributions(host).get(canonical_name(pin.distribution))
    if not items:
        return None
    text = host.read(f"{items[0].metadata}/direct_url.json")
    if directory := editable_source(text):
        found = _checkout(host, directory, pin, module, "editable")
        return PinnedSource(
            items[0].version, found.commit, directory, found.how, found.present, found.descends
        )
    return PinnedSource(items[0].version, _recorded_commit(text))


def read_head(host: Host, directory: str) -> str:
    """Return the commit of a git checkout from its files; empty if it is none."""
    folder = f"{directory}/.git"
    if host.is_file(folder):  # of a worktree or a submodule
        named = host.search(folder, r"^gitdir: (.+)$")
        folder = "" if named is None else named[1] if named[1].startswith("/") else f"{directory}/{named[1]}"
    head = (host.read(f"{folder}/HEAD") or "").strip() if folder else ""
    if _COMMIT.fullmatch(head):
        return head
    reference = head.removeprefix("ref: ")
    if not head or reference == head:
        return ""
    common = (host.read(f"{folder}/commondir") or "").strip()
    top = folder if not common else common if common.startswith("/") else f"{folder}/{common}"
    packed = host.search(f"{top}/packed-refs", rf"^([0-9a-f]{{40}}) {re.escape(reference)}$")
    return (host.read(f"{top}/{reference}") or "").strip() or (packed[1] if packed else "")


def _checkout(host: Host, directory: str, pin: PinnedPackage, module: str, how: str) -> PinnedSource:
    commit = read_head(host, directory)
    descends = False
    if commit and commit != pin.commit:
        words = git.command(directory, any_owner=True)
        answer = host.run([*words, "merge-base", "--is-ancestor", pin.commit, commit], _GIT_SECONDS)
        descends = answer.code == 0
    present = host.is_dir(f"{directory}/{module}")
    return PinnedSource(_source_version(host, directory, module), commit, directory, how, present, descends)


def _source_version(host: Host, directory: str, module: str) -> str:
    """Return the version that a checkout has in its own files; empty if it has none."""
    text = host.read(f"{directory}/{module}/package_info.py") or ""
    parts = dict(re.findall(r"^(MAJOR|MINOR|PATCH|PRE_RELEASE) *= *['\"]?(\w*)['\"]?", text, re.MULTILINE))
    if {"MAJOR", "MINOR", "PATCH"} <= parts.keys():
        return f"{parts['MAJOR']}.{parts['MINOR']}.{parts['PATCH']}{parts.get('PRE_RELEASE', '')}"
    found = host.search(f"{directory}/setup.py", r"^__version__ *= *['\"]([^'\"]+)['\"]")
    return found[1] if found else ""


def _recorded_commit(direct_url: str | None) -> str:
    """Return the commit that direct_url.json (PEP 610) records, or nothing."""
    try:
        commit = parse_direct_url(direct_url)["vcs_info"]["commit_id"]
    except (KeyError, TypeError):
        return ""
    return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else ""
