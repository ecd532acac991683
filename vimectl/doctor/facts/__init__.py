"""Read the machine into typed facts. Everything that touches the machine is in this package.

A reader is a function that takes a ``Host`` first and returns a fact. The checks in ``vimectl.doctor.checks``
get facts from ``Facts`` and touch nothing themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from vime_runtime.spec.recipe import Recipe

from vimectl.stacks.detection import find
from vimectl.stacks.installed import InstalledDistribution, distributions
from vimectl.stacks.interpreters import examined_interpreter
from vimectl.stacks.schema import Stack
from vimectl.util.host import ABSENT, CommandResult, Host

T = TypeVar("T")
P = ParamSpec("P")

# The kernel hides much of other users' processes.
_HIDDEN = re.compile(r"/proc/\d+/")


class Unavailable(Exception):
    """A fact does not exist here or cannot be read. The check that needs it is skipped with this reason."""


class Facts:
    """The facts of a machine, for a stack and optionally a recipe. Each is read once, when first needed."""

    def __init__(self, host: Host, stack: Stack, recipe: Recipe | None = None) -> None:
        self.stack = stack
        self.optional_recipe = recipe
        self._given = host
        # The results of the commands that were run, by command line. Each is run once.
        self.answers: dict[str, CommandResult] = {}
        self._known: dict[Hashable, tuple[Any, object, dict[str, str]]] = {}
        # What has been read, each path or command with its problem: by everything, and by who asks now.
        self._observed: dict[str, str] = {}
        self._collected: list[dict[str, str]] = [self._observed]
        observed = replace(host, run=self._run, observe=self._observe)
        # The interpreter whose packages are examined. What was read to find it concerns no single check.
        self.interpreter = examined_interpreter(observed)
        self._host = replace(observed, package_directories=self.interpreter.directories)

    def read(self, reader: Callable[Concatenate[Host, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the fact that ``reader`` reads with these arguments. Raises what the reader raises."""
        # Stacks and recipes cannot be hashed. Their identity is stable, since the entry keeps them alive.
        key = (reader, *(arg if isinstance(arg, (str, int, tuple)) else id(arg) for arg in args))
        if key not in self._known:
            with self.observing() as observed:
                self._known[key] = (args, reader(self._host, *args, **kwargs), observed)
        self._collect(self._known[key][2])
        return cast("T", self._known[key][1])

    @contextmanager
    def observing(self) -> Iterator[dict[str, str]]:
        """Collect what is read inside: paths and commands, each with its problem (empty: none)."""
        observed: dict[str, str] = {}
        self._collected.append(observed)
        try:
            yield observed
        finally:
            self._collected.pop()
            self._collect(observed)

    @property
    def observed(self) -> dict[str, str]:
        """The paths and commands that were read, each with its problem (empty: none)."""
        return dict(self._observed)

    @property
    def unreadable(self) -> dict[str, str]:
        """The paths that exist and could not be read, each with the reason. Those of other users' processes
        are not counted.
        """
        return {
            path: problem
            for path, problem in sorted(self._observed.items())
            if problem not in ("", ABSENT) and not _HIDDEN.match(path)
        }

    def _observe(self, what: str, problem: str) -> None:
        self._collect({what: problem})

    def _collect(self, observed: Mapping[str, str]) -> None:
        """Add what was read. A path that exists may still have a problem when it is read."""
        known = self._collected[-1]
        known.update({what: problem or known.get(what, "") for what, problem in observed.items()})

    def _run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        command = " ".join(argv)
        self._observe(command, "")
        if command not in self.answers:
            self.answers[command] = self._given.run(argv, timeout)
        return self.answers[command]

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Return those of the paths that do not exist."""
        return [path for path in paths if not self._host.exists(path)]

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted; empty if it does not exist."""
        return self._host.names(directory)

    def text(self, path: str) -> str:
        """Return the text of a file, stripped. Raises Unavailable if it cannot be read."""
        text = self._host.read(path)
        if text is None:
            raise Unavailable(f"{path}: {self._host.problem(path)}")
        return text.strip()

    def search(self, path: str, pattern: str) -> str:
        """Return the first group of a pattern in a file; empty if it is not there (see ``Host.search``)."""
        found = self._host.search(path, pattern)
        return found[1] if found else ""

    def output(self, *command: str) -> str:
        """Return the output of a command, stripped. Raises Unavailable if it fails."""
        answer = self._host.run(command, 5)
        if answer.code != 0:
            raise Unavailable(f"{command[0]} does not answer: {answer.stderr.strip() or answer.code}")
        return answer.stdout.strip()

    def program(self, *command: str) -> tuple[bool, str]:
        """Run a command that prints the version of a program. Return True if it works, and its first line."""
        answer = self._host.run(command, 5)
        works = answer.code == 0
        lines = (answer.stdout if works else answer.stderr).strip().splitlines()
        failure = "" if works else f"{command[0]}: exit status {answer.code}"
        return works, lines[0].strip() if lines else failure

    @property
    def recipe(self) -> Recipe:
        """The recipe. Raises Unavailable if none was given."""
        if self.optional_recipe is None:
            raise Unavailable("no recipe is given (--recipe)")
        return self.optional_recipe

    def recipe_for(self, found: str) -> Recipe:
        """Return the recipe that ``found`` is compared with. Raises Unavailable with it if none was given."""
        if self.optional_recipe is None:
            raise Unavailable(f"{found}; no recipe to compare with")
        return self.optional_recipe

    @property
    def nodes(self) -> int:
        """How many machines the job uses; 1 without a recipe."""
        return self.optional_recipe.cluster.nodes if self.optional_recipe else 1

    @property
    def running(self) -> bool:
        """True for a machine with processes and devices, False for an unpacked image."""
        return self._host.is_running

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of this process."""
        return self._host.environment

    @property
    def python(self) -> str:
        """The interpreter that would run the job."""
        return self._host.python

    @property
    def installed(self) -> dict[str, list[InstalledDistribution]]:
        """The installed distributions by canonical name; Python imports the first of each list."""
        return self.read(distributions)

    def find(self, package: str) -> InstalledDistribution | None:
        """Return the installed distribution that provides a package of the stack, or None."""
        return find(self.stack, package, self.installed)

    @property
    def root(self) -> str:
        """The root that is examined, as this process names it; empty for the running machine."""
        return "" if self._host.is_here else str(self._host.root)

    def without_root(self, text: str) -> str:
        """Return a text with paths as the machine itself names them, without the root."""
        return text.replace(self.root, "") if self.root else text
