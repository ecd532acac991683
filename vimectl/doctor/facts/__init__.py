"""Read the machine into typed facts. Everything that touches the machine is in this package.

A reader is a function that takes a ``Host`` first and returns a fact. The checks in ``vimectl.doctor.checks``
get facts from ``Facts.read`` and touch nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
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
        arguments = (*args, *sorted(kwargs.items()))
        # Stacks and recipes cannot be hashed. Their identity is stable, since the entry keeps them alive.
        key = (reader, *(arg if isinstance(arg, (str, int, float, tuple)) else id(arg) for arg in arguments))
        if key not in self._known:
            self._known[key] = (arguments, reader(self._host, *args, **kwargs))
        return cast("T", self._known[key][1])

    @property
    def recipe(self) -> Recipe:
        """The recipe. Raises Unavailable if none was given."""
        if self.optional_recipe is None:
            raise Unavailable("no recipe is given (--recipe)")
        return self.optional_recipe

    @property
    def is_here(self) -> bool:
        """True for the machine on which this process runs."""
        return self._host.is_here

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
        return text if self.is_here else text.replace(str(self._host.root), "")
