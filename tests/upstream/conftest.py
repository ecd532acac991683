"""Skip the tests, or fail them in CI, when a release cannot be fetched."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import unavailable


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except MissingRequirement as e:
        unavailable(e.message)
