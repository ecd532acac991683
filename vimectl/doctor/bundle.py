"""Write a support bundle: a zip file with the facts of a machine, without secrets and names."""

from __future__ import annotations

import json
import os
import re
import zipfile
from contextlib import suppress
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.private_values import SECRET
from vime_runtime.spec.process_roles import ROLES
from vime_runtime.spec.recipe import Recipe

from vimectl import __version__
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.machine_summary import VARIABLES, summarize
from vimectl.doctor.runner import DoctorReport
from vimectl.env.memory_saver.verify import verify_installed
from vimectl.recipes.environment import environment
from vimectl.stacks.detection import detect_stack
from vimectl.util.console import one_line
from vimectl.util.host import Host
from vimectl.util.secrets import is_secret, redact, redact_document

# Of the files that the checks read, those that concern the machine and neither people nor their data.
_FILES = (
    *("/etc/os-release", "/etc/hccn.conf", "/etc/ld.so.conf*", "/proc/meminfo", "/proc/sys/*", "/sys/*"),
    *("/proc/self/cgroup", "/proc/self/limits", "/proc/self/status", "*/version.info", "*_install.info"),
    *("*/WHEEL", "*/direct_url.json", "*/pyvenv.cfg", "*/_build_info.py"),
)
_MAX_CHARACTERS = 256 * 1024
_README = """The facts that `vimectl doctor --bundle` collected on a machine, to attach to a bug report.

    doctor.txt, doctor.json   the report
    facts.json                the machine in labeled values
    stack.json                the stack, and how the installed packages differ from it
    packages.json             every package of the interpreter: version and directory
    environment.json          the variables that concern the stack, here and in each process
    memory_saver.json         the torch_memory_saver libraries
    recipe.json               the recipe, if one was given
    files/, commands.txt      the files and the output of the commands that the checks read

Secrets are replaced by <secret>, names of people by <user>, those of the machine by <host>. No program can
recognize all of them: check the files before you share them.
"""

USER, HOST = "<user>", "<host>"

_PATTERNS = [
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), USER),
    # The home directory of any user, also of one who is not in this machine's /etc/passwd.
    (re.compile(r"(?<=/home/)[^/\s:;,\"']+|(?<=/Users/)[^/\s:;,\"']+"), USER),
]
# The user ids of people: below are system accounts, and 65534 is the kernel's overflow id.
_FIRST_PERSON, _OVERFLOW = 1000, 65534
# A shorter value would match unrelated text.
_SHORTEST_SECRET = 6


def check_bundle_path(file: Path) -> None:
    """Raise UsageError if a bundle cannot be written to ``file``. Called before the slow part."""
    if file.exists():
        raise UsageError(f"{file} exists already", "give another file to --bundle, or remove it")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file.absolute().parent}: no such directory", "give a file in one that exists")


def write_bundle(file: Path, report: DoctorReport, text: str, redact: Redactor) -> list[str]:
    """Write a bundle, a zip file that only its owner can read.

    Args:
        text: the report as text.

    Returns:
        the names of the files in it.

    Raises:
        UsageError: the file exists already (see check_bundle_path), or cannot be written.
    """
    facts = report.facts
    documents: dict[str, Any] = {
        "doctor.json": {"vimectl": __version__, **report.as_json()},
        "facts.json": summarize(facts),
        "stack.json": {"stack": facts.stack.model_dump(), "installed": asdict(facts.read(detect_stack))},
        "packages.json": {
            name: [f"{item.version} in {item.location}" for item in items]
            for name, items in sorted(facts.installed.items())
        },
        "environment.json": facts.read(_environment, facts.optional_recipe),
        "memory_saver.json": [asdict(build) for build in facts.read(verify_installed, facts.stack)],
    }
    if facts.optional_recipe:
        documents["recipe.json"] = facts.optional_recipe.model_dump(mode="json")
    texts = {"doctor.txt": text, "commands.txt": _outputs(facts), **_files(facts)}
    contents = {"README.txt": _README}
    contents |= {redact.text(name): _clean_lines(redact.text(content)) for name, content in texts.items()}
    contents |= {
        name: json.dumps(redact.value(document), indent=2, default=str) + "\n"
        for name, document in documents.items()
    }
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise UsageError(f"{file}: cannot be written: {e.strerror}", "give another file to --bundle") from e
    with os.fdopen(descriptor, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return list(contents)


def _files(facts: Facts) -> dict[str, str]:
    """Return the texts of the files that the checks read and that concern the machine."""
    found = {}
    for path in sorted(facts.observed):
        if any(fnmatchcase(path, pattern) for pattern in _FILES):
            with suppress(Unavailable):  # only looked for, or not readable: the report says so
                found[f"files{path}"] = facts.text(path)[:_MAX_CHARACTERS]
    return found


def _outputs(facts: Facts) -> str:
    """Return the outputs of the commands that the checks ran. Programs of several lines are left out."""
    return "\n".join(
        f"$ {command}\nexit status {answer.code}\n{answer.stdout}{answer.stderr}"
        for command, answer in sorted(facts.answers.items())
        if "\n" not in command
    )


def _clean_lines(text: str) -> str:
    return "".join(f"{one_line(line.expandtabs())}\n" for line in text.splitlines())


def _environment(host: Host, recipe: Recipe | None) -> dict[str, Any]:
    here = {name: value for name, value in sorted(host.environment.items()) if name.startswith(VARIABLES)}
    found: dict[str, Any] = {"here": here, "others": len(host.environment) - len(here)}
    if recipe:
        scratch = Path("/tmp/vime-0")  # nosec B108 # stands in for a folder, is not made
        found["processes"] = {
            role: {
                name: setting.model_dump()
                for name, setting in environment(recipe, role, host, scratch).items()
            }
            for role in ROLES
        }
    return found


class Redactor:
    """Replaces the secrets and names of a machine wherever they occur."""

    def __init__(self, host: Host) -> None:
        values = {value for name, value in host.environment.items() if is_secret(name)}
        values = {value for value in values if len(value) >= _SHORTEST_SECRET}
        self._values = sorted(values, key=len, reverse=True)
        self._words = [(name, USER) for name in _user_names(host)]
        self._words += [(name, HOST) for name in _host_names(host)]
        # The longest first: a host is often named after a user.
        self._words.sort(key=lambda pair: len(pair[0]), reverse=True)

    def text(self, text: str) -> str:
        """Return a text without secrets and names."""
        for value in self._values:
            text = text.replace(value, SECRET)
        text = redact(text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        for word, replacement in self._words:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", replacement, text)
        return text

    def value(self, value: Any) -> Any:
        """Return a value of a JSON document without them. The value of a secret key is replaced whole."""
        return redact_document(value, self.text)


def _user_names(host: Host) -> set[str]:
    """Return the people of a machine: the user, the owner of the home directory, those with an account."""
    names = {host.environment.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "USERNAME")}
    names.add(host.environment.get("HOME", "").rstrip("/").rpartition("/")[2])
    for line in (host.read("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdigit() and _FIRST_PERSON <= int(fields[2]) < _OVERFLOW:
            names |= {fields[0], *fields[4].split(",")[:1], fields[5].rstrip("/").rpartition("/")[2]}
    return {name for name in names if name and name not in ("root", "home")}


def _host_names(host: Host) -> set[str]:
    """Return the names of the machine, with and without its domain."""
    names = {host.environment.get("HOSTNAME", ""), (host.read("/etc/hostname") or "").strip()}
    answer = host.run(["uname", "-n"], 5)
    names.add(answer.stdout.strip() if answer.code == 0 else "")
    names |= {name.partition(".")[0] for name in names}
    return {name for name in names if name and name != "localhost"}
