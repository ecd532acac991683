"""Read the machine into typed facts. Everything that touches the machine is in this package.

A reader is a function that takes a ``Host`` first and returns a fact. The checks in ``vimectl.doctor.checks``
get facts from ``Facts`` and touch nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from vime_runtime.spec.recipe import Recipe

from vimectl.stacks.detection import find
from vimectl.stacks.installed import InstalledDistribution, distributions
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

T = TypeVar("T")
P = ParamSpec("P")


class Unavailable(Exception):
    """A fact does not exist here or cannot be read. The check that needs it is skipped with this reason."""


class Facts:
    """The facts of a machine, for a stack and optionally a recipe. Each is read once, when first needed."""

    def __init__(self, host: Host, stack: Stack, recipe: Recipe | None = None) -> None:
        self.stack = stack
        self.optional_recipe = recipe
        self._host = host.with_command_cache()
        self._known: dict[Hashable, tuple[Any, object]] = {}

    def read(self, reader: Callable[Concatenate[Host, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the fact that ``reader`` reads with these arguments. Raises what the reader raises."""
        # Stacks and recipes cannot be hashed. Their identity is stable, since the entry keeps them alive.
        key = (reader, *(arg if isinstance(arg, (str, int, tuple)) else id(arg) for arg in args))
        if key not in self._known:
            self._known[key] = (args, reader(self._host, *args, **kwargs))
        return cast("T", self._known[key][1])

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Return those of the paths that do not exist."""
        return [path for path in paths if not self._host.path(path).exists()]

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted; empty if it does not exist."""
        return sorted(path.name for path in self._host.path(directory).glob("*"))

    def text(self, path: str) -> str:
        """Return the text of a file, stripped. Raises Unavailable if it cannot be read."""
        text = self._host.read(path)
        if text is None:
            raise Unavailable(f"{path} cannot be read")
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

    @cached_property
    def installed(self) -> dict[str, list[InstalledDistribution]]:
        """The installed distributions by canonical name; Python imports the first of each list."""
        return distributions(self._host)

    def find(self, package: str) -> InstalledDistribution | None:
        """Return the installed distribution that provides a package of the stack, or None."""
        return find(self.stack, package, self.installed)

    def without_root(self, text: str) -> str:
        """Return a text with paths as the machine itself names them, without the root."""
        return text if self._host.is_here else text.replace(str(self._host.root), "")
