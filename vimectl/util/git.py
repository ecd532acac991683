"""Run git so that the repository it reads cannot make it run a program, use the network or wait.

The configuration of a repository names programs: a file monitor, hooks, filters of file contents, helpers of
transports. A downloaded repository has a configuration that its author chose.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.util.console import err

# A repository with named pipes in place of its files makes git wait forever.
TIMEOUT_SECONDS = 120.0
_PROTOCOLS = ("file", "git", "ssh", "http", "https", "ftp", "ftps", "ext", "fd")
_SETTINGS = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "log.showSignature": "false",
    # A partial clone would fetch what it lacks with programs of its configuration.
    "protocol.allow": "never",
    **{f"protocol.{name}.allow": "never" for name in _PROTOCOLS},
}
# By the name of a filter: without a command, git takes the content as it is.
_NO_FILTER = ("clean=", "smudge=", "process=", "required=false")


def command(directory: Path | str, work_tree: bool = False, any_owner: bool = False) -> list[str]:
    """Return the beginning of a git command line for a repository that is not trusted.

    Args:
        work_tree: the command compares the files of the work tree, for which git would run filters.
        any_owner: the repository may belong to another user, which git refuses by default.

    Raises:
        UsageError: a filter has a name that no option can state.
        MissingRequirement: git is not installed.
    """
    words = ["git", "--no-pager", "--no-optional-locks", "--no-replace-objects"]
    words += [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    words += ["-c", f"safe.directory={directory}"] if any_owner else []
    words += ["-C", str(directory)]
    if work_tree:
        words[1:1] = [word for setting in _without_filters(words) for word in ("-c", setting)]
    return words


def run(
    directory: Path | str,
    *arguments: str,
    stdin: bytes = b"",
    user_settings: bool = True,
    work_tree: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a repository that is not trusted, and return its exit code and output.

    Args:
        user_settings: the configuration of the user and the system counts.
        work_tree: see ``command``.

    Raises:
        UsageError: git does not finish.
        MissingRequirement: git is not installed.
    """
    return _run([*command(directory, work_tree), *arguments], stdin, user_settings)


def _run(words: list[str], stdin: bytes, user_settings: bool) -> subprocess.CompletedProcess[bytes]:
    # A git hook sets GIT_DIR and others for its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    if not user_settings:
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    err.command(words)
    try:
        return subprocess.run(
            words, input=stdin, capture_output=True, env=environment, timeout=TIMEOUT_SECONDS
        )
    except FileNotFoundError as e:
        raise MissingRequirement("git is not installed", "install git") from e
    except subprocess.TimeoutExpired as e:
        directory = words[words.index("-C") + 1]
        raise UsageError(
            f"{directory}: git did not finish within {TIMEOUT_SECONDS:.0f} s",
            "look for named pipes in place of .git/config, .git/HEAD and .gitignore",
        ) from e


def _without_filters(words: list[str]) -> list[str]:
    """Return settings that turn off all filters of a configuration."""
    found = _run([*words, "config", "--null", "--name-only", "--get-regexp", r"^filter\."], b"", True)
    keys = (os.fsdecode(key) for key in found.stdout.split(b"\0")[:-1])
    names = sorted({key.partition(".")[2].rpartition(".")[0] for key in keys})
    for name in names:
        if "=" in name or "\n" in name:
            raise UsageError(f"the git filter {name!r} cannot be disabled", "remove it from .git/config")
    return [f"filter.{name}.{setting}" for name in names for setting in _NO_FILTER]
