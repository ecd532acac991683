"""The plan of an image: base image, sources, pins and reasons."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.images.user_stack import UserStack
from vimectl.images.plan import make_plan, stacks_with_images
from vimectl.stacks.catalog import stack_file, stack_names


@pytest.mark.parametrize("name", stacks_with_images())
def test_plan_pins_everything_of_the_stack(name: str) -> None:
    made = make_plan(name)
    found = {(source.kind, source.name): source for source in made.sources}
    for package, version in made.stack.series:
        assert found["patches", package].version == version
    for package, pin in made.stack.commits.items():
        assert (found["git", package].url, found["git", package].commit) == (pin.url, pin.commit)
    for source in made.sources:
        assert source.reason
        assert source.commit if source.kind == "git" else source.version or source.kind in ("stack", "lock")
        assert source.sha256 or source.kind != "wheel"


def test_stacks_with_images() -> None:
    assert {"ascend-0.22", "cpu-0.32"} <= set(stacks_with_images())


@pytest.mark.parametrize(
    ("chip", "tag"), [(None, "v0.22.1rc1"), ("a2", "v0.22.1rc1"), ("a3", "v0.22.1rc1-a3")]
)
def test_base_image_depends_on_the_chip(chip: str | None, tag: str) -> None:
    made = make_plan("ascend-0.22", chip)
    assert made.base == f"quay.io/ascend/vllm-ascend:{tag}"
    assert made.arguments == {"STACK": "ascend-0.22", "BASE_NAME": made.base, "CHIP": chip or "a2"}


def test_base_option_overrides_the_base_image() -> None:
    made = make_plan("ascend-0.22", base="localhost/stand-in")
    assert (made.base, made.base_reason) == ("localhost/stand-in", "given with --base")


def test_memory_saver_source_is_without_its_submodule() -> None:
    (saver,) = [source for source in make_plan("ascend-0.22").sources if source.name == "sgl-kernel-npu"]
    assert saver.left_out == ("third-party/pto-isa",)
    assert "without third-party/pto-isa: only the project's kernels need it" in saver.reason
    assert saver.path == f"sources/sgl-kernel-npu-{saver.commit}.tar.gz"


def test_packages_of_the_base_image_are_not_among_the_wheels() -> None:
    made = make_plan("ascend-0.22")
    wheels = {source.name for source in made.sources if source.kind == "wheel"}
    assert not wheels & (made.image.ships.keys() | made.image.built.keys() | made.stack.packages.keys())
    assert {"gitdb", "math-verify", "reasoning-gym", "tensorboard"} <= wheels


def test_wheel_has_the_reason_from_the_lock() -> None:
    why = {source.name: source.reason for source in make_plan("ascend-0.22").sources}
    assert why["werkzeug"] == "required by tensorboard"
    assert why["math-verify"] == "required by the stack, vimectl or its runtime"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ascend-0.2",), "unknown stack"),
        (("ascend-0.22", "a4"), "unknown chip 'a4'"),
        (("cpu-0.32", "a2"), "is for the cpu, not for chips"),
        (("ascend-0.30",), r"has no \[image\] table"),
        (("ascend-0.22", None, None, "riscv64"), "unknown machine 'riscv64'"),
        (("none.toml",), r"none\.toml: no such file"),
    ],
)
def test_error_says_why_an_image_cannot_be_planned(arguments: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(*arguments)


def test_stack_file_needs_a_lock_next_to_it(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(stack_file("ascend-0.22").read_text().replace('name = "ascend-0.22"', 'name = "own"'))
    with pytest.raises(UsageError) as error:
        make_plan(str(own))
    assert str(tmp_path / "own.txt") in error.value.hint
    (tmp_path / "own.txt").write_text(f"math-verify==0.9.0 --hash=sha256:{'0' * 64}\n")
    made = make_plan(str(own))
    assert (made.stack.name, made.stack.argument) == ("own", str(own))
    assert [source.name for source in made.sources if source.kind == "wheel"] == ["math-verify"]
    assert "own" not in stack_names()


def test_lock_is_read_for_the_machine_of_the_image(own: UserStack) -> None:
    pins = [
        f"weights=={version} ; platform_machine == '{machine}' --hash=sha256:{'0' * 64}"
        for machine, version in (("x86_64", "1.0"), ("aarch64", "1.0.post1"))
    ]
    own.file.with_suffix(".txt").write_text("\n".join(pins) + "\n")
    for machine, version in (("x86_64", "1.0"), ("aarch64", "1.0.post1")):
        made = make_plan(str(own.file), machine=machine)
        assert [one.version for one in made.sources if one.kind == "wheel"] == [version]
