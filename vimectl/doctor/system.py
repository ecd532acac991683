"""host: what kind of machine it is: system, kernel, C library and other libraries, clock."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from vimectl.doctor.driver import container
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.detection import find

# pidfd_open(2): the supervisor of a run watches its processes through it.
_KERNEL = (5, 3)
# Two clocks of one machine differ by less; also the time that an installation takes.
_CLOCK_SECONDS = 3600
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def checks() -> list[Check]:
    return [
        Check("host.system", "the stack's packages are built for these systems", _system),
        Check(
            "host.kernel",
            "a run's supervisor watches its processes with pidfd_open(2), in Linux since 5.3",
            _kernel,
        ),
        Check("host.glibc", "the stack's wheels are built against this glibc (their manylinux tags)", _glibc),
        Check(
            "host.libraries",
            "compiled parts of packages load libraries that no package brings, some only in a run",
            _libraries,
        ),
        Check(
            "host.clock",
            "with a clock that is behind, certificates are not valid and runs sort wrongly",
            _clock,
        ),
    ]


def _system(subject: Subject) -> Outcome:
    answer = subject.host.run(["uname", "-sm"], 5)
    if answer.code != 0:
        return skipped(f"uname could not be asked: {answer.stderr.strip() or answer.code}")
    system, _, machine = answer.stdout.strip().partition(" ")
    wanted = subject.stack.stack.machines
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', subject.host.read("/etc/os-release") or "", re.MULTILINE)
    found = ", ".join(
        [f"{system} {machine}", *([release[1]] if release else []), _place(subject)],
    )
    return judged(
        system == "Linux" and machine in wanted,
        found,
        f"Linux {' or '.join(wanted)}",
        "use a machine of that kind",
    )


def _place(subject: Subject) -> str:
    engine = container(subject)
    return f"in a {engine} container" if engine else "in no container"


def _kernel(subject: Subject) -> Outcome:
    answer = subject.host.run(["uname", "-r"], 5)
    found = re.match(r"(\d+)\.(\d+)", answer.stdout)
    if answer.code != 0 or found is None:
        return skipped(f"uname could not be asked: {answer.stderr.strip() or answer.code}")
    wanted = ".".join(map(str, _KERNEL))
    return judged(
        tuple(map(int, found.groups())) >= _KERNEL,
        answer.stdout.strip(),
        f"{wanted} or later",
        "use a host with a later kernel (a container has that of its host)",
    )


def _glibc(subject: Subject) -> Outcome:
    answer = subject.host.run(["getconf", "GNU_LIBC_VERSION"], 5)
    if answer.code == 126:
        return skipped(answer.stderr)
    found = re.match(r"glibc (\d+)\.(\d+)", answer.stdout)
    needed = _wheels(subject)
    if not needed:
        return skipped("no package of the stack is installed from a wheel with a manylinux tag")
    (major, minor), package = max((version, name) for name, version in needed.items())
    return judged(
        found is not None and tuple(map(int, found.groups())) >= (major, minor),
        answer.stdout.strip() if found else "no glibc",
        f"glibc {major}.{minor}, for {package}",
        "use a distribution with a later glibc: Ubuntu 22.04, openEuler 22.03, Debian 12",
    )


def _wheels(subject: Subject) -> dict[str, tuple[int, int]]:
    """The glibc that the installed wheels of the stack ask for, by package."""
    installed = subject.installed
    needed: dict[str, tuple[int, int]] = {}
    for package in subject.stack.packages:
        if have := find(subject.stack, package, installed):
            # Metadata folders keep the spelling of their project.
            for file in have.location.glob(f"*-{have.version}.dist-info/WHEEL"):
                if _same(file.parent.name, have.name):
                    tags = re.findall(r"manylinux_(\d+)_(\d+)", file.read_text(errors="replace"))
                    needed |= {package: max((int(a), int(b)) for a, b in tags)} if tags else {}
    return needed


def _same(folder: str, name: str) -> bool:
    return re.sub(r"[-_.]+", "-", folder.partition("-")[0]).lower() == name


def _libraries(subject: Subject) -> Outcome:
    host, libraries = subject.host, subject.stack.libraries
    if not libraries:
        return skipped(f"{subject.stack.name} names none")
    answers = {name: host.run([host.python, "-c", _LOAD, name], 20) for name in libraries}
    if any(answer.code in (126, 127) for answer in answers.values()):
        return skipped(f"{host.python} cannot be started here")
    errors = {name: answer.stderr.strip() for name, answer in answers.items() if answer.code != 0}
    return judged(
        not errors,
        "; ".join((text.splitlines() or [name])[-1] for name, text in errors.items()) or "all there",
        "; ".join(f"{name}, for {libraries[name].needed_by}" for name in errors or libraries),
        "; ".join(libraries[name].install for name in errors),
    )


def _clock(subject: Subject) -> Outcome:
    answer = subject.host.run(["date", "-u", "+%s"], 5)
    if answer.code != 0 or not answer.stdout.strip().isdecimal():
        return skipped(f"date does not answer: {answer.stderr.strip() or answer.code}")
    now = int(answer.stdout)
    installed = subject.installed
    packages = [have for name in subject.stack.packages if (have := find(subject.stack, name, installed))]
    newest = max((have.location.stat().st_mtime for have in packages), default=0)
    return judged(
        now >= newest - _CLOCK_SECONDS,
        f"{_moment(now)}" + (f"; packages were installed {_moment(newest)}" if newest else ""),
        "after the installation of what is there",
        "set the clock: timedatectl set-ntp true, as root  (a container has the clock of its host)",
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
