"""The explanation of a failed build, from real builder output: the step, its last lines, and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.images.build_failure import explain

LOG = Path("records/build.log")

BUILDAH = """\
[1/2] STEP 1/9: FROM localhost/vimectl-build AS built
[1/2] STEP 5/9: RUN python3 -m pip install --no-index
Looking in links: /offline/wheels
[2/2] STEP 8/22: RUN vimectl patch apply --stack /opt/vimectl/stack.toml
{text}
subprocess exited with status 1
subprocess exited with status 1
Error: building at STEP "RUN vimectl patch apply": exit status 1
time="2026-11-25T04:22:47Z" level=error msg="exit status 1"
"""
# BuildKit's --progress=plain: two stages in parallel, and the failed step repeated at the end.
BUILDKIT = """\
#1 [internal] load build definition from Dockerfile.npu
#7 [built 3/9] RUN python3 -m pip install --no-index
#7 0.412 Looking in links: /offline/wheels
#8 [stage-1 4/9] RUN vimectl patch apply --stack /opt/vimectl/stack.toml
#8 1.310 {text}
#7 2.001 Processing /offline/wheels/rich-15.0.0-py3-none-any.whl
#8 ERROR: process "/bin/sh -c vimectl patch apply" did not complete successfully: exit code: 1
#7 CANCELED
------
 > [stage-1 4/9] RUN vimectl patch apply --stack /opt/vimectl/stack.toml:
1.310 {text}
------
Dockerfile.npu:70
--------------------
  70 | >>> RUN vimectl patch apply --stack /opt/vimectl/stack.toml
--------------------
ERROR: failed to solve: process "/bin/sh -c vimectl patch apply" did not complete successfully: exit code: 1
"""


@pytest.mark.parametrize("output", [BUILDAH, BUILDKIT], ids=["buildah", "buildkit"])
def test_error_of_vimectl_inside_the_image_is_the_reason(output: str) -> None:
    mark = "\n#8 1.311 " if output is BUILDKIT else "\n"
    text = f"error: worker.py drifted{mark}hint:  look at it with vimectl patch diff"
    error = explain(1, output.format(text=text), LOG)
    assert isinstance(error, CheckFailed)
    assert error.message.startswith("worker.py drifted\n")
    assert "RUN vimectl patch apply" in error.message.splitlines()[1]
    assert "rich-15.0.0" not in error.message
    assert "subprocess exited" not in error.message
    assert str(LOG) in error.message
    assert error.hint == "look at it with vimectl patch diff"


@pytest.mark.parametrize("output", [BUILDAH, BUILDKIT], ids=["buildah", "buildkit"])
@pytest.mark.parametrize(
    ("text", "found", "kind"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full", MissingRequirement),
        ("/bin/sh: exec format error", "another CPU architecture", MissingRequirement),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "another digest", CheckFailed),
        ("/usr/bin/python3: No module named pip", "no Python with pip", CheckFailed),
        ("/bin/sh: 1: python3: not found", "no Python with pip", CheckFailed),
        ("OSError: libnuma.so.1: cannot open shared object file", "no libnuma", CheckFailed),
        ("ERROR: No matching distribution found for rich", "not among the collected ones", CheckFailed),
        ("utils.h:2:10: fatal error: acl/acl.h: No such file", "cannot be compiled", CheckFailed),
        ("error: command 'g++' failed: No such file or directory", "cannot be compiled", CheckFailed),
        ("error: subprocess-exited-with-error\nhint: See above for details.", "exit status 1", CheckFailed),
        ("unknown output", "exit status 1", CheckFailed),
    ],
)
def test_other_output_is_explained_by_its_pattern(
    output: str, text: str, found: str, kind: type[CheckFailed] | type[MissingRequirement]
) -> None:
    error = explain(1, output.format(text=text), LOG)
    assert type(error) is kind
    assert found in error.message.splitlines()[0]
    assert f"    {text.splitlines()[0]}" in error.message.splitlines()
    assert error.hint


def test_failed_pull_is_before_the_first_step() -> None:
    text = "Error: initializing source docker://nowhere.invalid/x: pinging container registry: no such host"
    error = explain(125, text, LOG)
    assert isinstance(error, MissingRequirement)
    assert error.message.startswith("the base image cannot be pulled\n  step: before the first")
    assert "buildah pull docker-archive:FILE" in error.hint


def test_only_the_last_lines_are_shown() -> None:
    error = explain(1, BUILDAH.format(text="\n".join(f"line {n}" for n in range(100))), LOG)
    assert "line 99" in error.message
    assert "line 80" not in error.message
