"""packages: what is installed against the stack, read from metadata; nothing is imported."""

from __future__ import annotations

import re
from functools import partial

from packaging.utils import canonicalize_name

from vimectl.doctor import companions
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.catalog import lock_path
from vimectl.stacks.detection import find
from vimectl.stacks.installed import InstalledDistribution, site_directories
from vimectl.stacks.lock import read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches, within


def checks(stack: Stack) -> list[Check]:
    found = [
        Check(
            f"packages.{name}",
            stack.source(name) or "the stack is proven with this version alone",
            partial(_version, name),
        )
        for name in stack.packages
    ]
    found += [
        Check(f"packages.{name}-build", origin.note, partial(_build, name))
        for name, origin in stack.origin.items()
    ]
    found.append(
        Check("packages.duplicates", "Python imports the first of two and hides the other", _duplicates)
    )
    found += companions.checks()
    if stack.ranges:
        why = "; ".join(f"{name}: {stack.source(name)}" for name in stack.ranges)
        found.append(Check("packages.ranges", why, _ranges))
    if stack.unwanted:
        found.append(Check("packages.unwanted", "; ".join(stack.unwanted.values()), _unwanted))
    if lock_path(stack.name):
        found.append(Check("packages.lock", "the stack is proven with its whole lock", _lock))
    return found


def _version(name: str, subject: Subject) -> Outcome:
    wanted = subject.stack.packages[name]
    have = find(subject.stack, name, subject.installed)
    found = f"{have.name} {have.version}" if have else "not installed"
    return judged(
        have is not None and matches(have.version, wanted),
        found,
        wanted,
        _install(subject.stack, name, wanted),
    )


def _ranges(subject: Subject) -> Outcome:
    stack = subject.stack
    have = {name: find(stack, name, subject.installed) for name in stack.ranges}
    outside = [
        name
        for name, wanted in stack.ranges.items()
        if not (h := have[name]) or not within(h.version, wanted)
    ]
    absent = None in have.values()
    names = " ".join(f"'{stack.distributions(name)[0]}{stack.ranges[name]}'" for name in outside)
    return judged(
        not outside,
        ", ".join(f"{name} {h.version if h else 'not installed'}" for name, h in have.items()),
        ", ".join(f"{name} {wanted}" for name, wanted in stack.ranges.items()),
        f"python -m pip install {names}",
        "fail" if absent else "warn",
    )


def _build(name: str, subject: Subject) -> Outcome:
    marker = subject.stack.origin[name].marker
    for directory in site_directories(subject.host):
        path = directory / marker.path
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            good = re.search(marker.pattern, text, re.MULTILINE) is not None
            found = f"{path} {'says' if good else 'does not say'} so"
            return judged(
                good, found, marker.meaning, _install(subject.stack, name, subject.stack.packages[name])
            )
    return skipped(f"no {marker.path} is installed")


def _duplicates(subject: Subject) -> Outcome:
    twice = {
        name: items
        for name, items in _relevant(subject).items()
        if len({(item.version, item.location) for item in items}) > 1
    }
    found = "; ".join(
        f"{name}: " + ", ".join(f"{item.version} in {item.location}" for item in items)
        for name, items in twice.items()
    )
    fix = "uninstall the copies that come later: " + ", ".join(twice)
    return judged(not twice, found or "none", "each package of the stack once", fix, "warn")


def _relevant(subject: Subject) -> dict[str, list[InstalledDistribution]]:
    stack = subject.stack
    names = {canonicalize_name(d) for package in stack.packages for d in stack.distributions(package)}
    return {name: items for name, items in subject.installed.items() if name in names}


def _unwanted(subject: Subject) -> Outcome:
    installed = subject.installed
    there = [name for name in subject.stack.unwanted if canonicalize_name(name) in installed]
    return judged(
        not there,
        ", ".join(there) or "none of them",
        "without " + ", ".join(subject.stack.unwanted),
        f"python -m pip uninstall --yes {' '.join(there)}",
    )


def _lock(subject: Subject) -> Outcome:
    lock = lock_path(subject.stack.name)
    assert lock is not None
    pins = read_lock(lock)
    versions = {name: items[0].version for name, items in subject.installed.items()}
    other = [
        f"{pin.name} {versions.get(pin.name, 'absent')} (not {pin.version})"
        for pin in pins.values()
        if not matches(versions.get(pin.name, ""), pin.version)
    ]
    shown = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
    return judged(
        not other,
        f"{len(pins) - len(other)} of {len(pins)} as locked" + (f"; {shown}" if other else ""),
        f"all {len(pins)}",
        f"vimectl env create DIR --stack {subject.stack.name}",
        "warn",
    )


def _install(stack: Stack, name: str, version: str) -> str:
    if lock_path(stack.name):
        return f"vimectl env create DIR --stack {stack.name}, then use DIR/bin/vimectl"
    return f"python -m pip install --no-deps {stack.distributions(name)[0]}=={version}"
