"""Images built twice, builds that must fail, and the CPU image."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness.images import fake_base, fake_sources
from harness.images.image_store import ImageStore
from harness.memory_saver.elf_file import ElfFile
from vimectl.images import vendor
from vimectl.images.builders import ARCHITECTURES, Builder
from vimectl.images.plan import make_plan
from vimectl.images.saved_image import SavedImage
from vimectl.util.host import Host

pytestmark = [pytest.mark.exhaustive, pytest.mark.needs("network")]

NEW_FILE = """\
Description: Add a module

diff --git a/vllm/team.py b/vllm/team.py
new file mode 100644
index 0000000000000000000000000000000000000000..d00491fd7e5bb6fa28c517a0bb32b8b506539d4d
--- /dev/null
+++ b/vllm/team.py
@@ -0,0 +1 @@
+1
"""
WORKER = f"{fake_base.WORKSPACE}/vllm-ascend/vllm_ascend/worker/worker.py"


def lines(images: ImageStore, image: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines of the tree digest of an image."""
    for name, value in images.variables.items():
        monkeypatch.setenv(name, value)
    (work / image).mkdir()
    return SavedImage(Builder("buildah", Host()).save_command(image)).extract(work / image)


def refused(images: ImageStore, tag: str, arguments: list[str]) -> str:
    """Call vimectl, check that it fails and leaves nothing, and return stderr."""
    done = images.vimectl(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert images.leftovers() == []
    assert tag not in images.buildah("images")
    return done.stderr


def changed(images: ImageStore, command: str, name: str, image: str = fake_base.IMAGE) -> str:
    """Run a shell command in an image, and return the name of the image that it makes."""
    container = images.buildah("from", "--pull-never", image)
    images.buildah("run", "--isolation=chroot", "--user=root", container, "--", "sh", "-c", command)
    images.buildah("commit", "--quiet", container, name)
    images.buildah("rm", container)
    return name


def test_second_build_has_the_same_file_tree(
    images: ImageStore,
    stand_in_stack: Path,
    stand_in_folder: Path,
    stand_in_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = images.build(stand_in_stack, stand_in_folder, "again")
    assert done.returncode == 0, done.stderr
    first = lines(images, stand_in_image, tmp_path, monkeypatch)
    second = lines(images, "again", tmp_path, monkeypatch)
    assert set(first) ^ set(second) == set()
    verdicts = [images.verify(name, "--stand-in", "--tree") for name in (stand_in_image, "again")]
    assert verdicts[0]["tree"] == verdicts[1]["tree"]
    assert verdicts[0]["image"] == verdicts[1]["image"]


def test_patch_that_does_not_apply_to_the_base(
    images: ImageStore, stand_in_stack: Path, stand_in_folder: Path
) -> None:
    change = f"sed -i 's/init_snapshot/the_snapshot/' {WORKER}"
    base = changed(images, change, "localhost/edited-base")
    building = images.building(stand_in_stack, stand_in_folder, "unfit", base=base)
    output = refused(images, "unfit", building)
    assert "vllm_ascend/worker/worker.py" in output
    assert re.search(r"step: .*vimectl patch apply", output)
    assert "hint:" in output


def test_sources_behind_a_link_are_a_problem(images: ImageStore, stand_in_image: str) -> None:
    command = f"cd {fake_base.WORKSPACE}/vllm && mv vllm other && ln -s other vllm"
    found = images.verify(changed(images, command, "localhost/linked", stand_in_image), "--stand-in")
    assert [problem for problem in found["problems"] if "patches.vllm: not checked: " in problem]
    assert "vllm" not in {target["package"] for target in found["patches"]}


def test_memory_saver_for_cuda(images: ImageStore, tmp_path: Path) -> None:
    stack = fake_sources.stack_file(tmp_path / "sources", needed=["libcudart.so.12", "libc.so.6"])
    folder = tmp_path / "offline"
    vendor.collect(make_plan(str(stack)), folder, lambda now: None)
    output = refused(images, "cuda", images.building(stack, folder, "cuda"))
    assert "built for cuda, the stack needs ascend" in output
    assert "build it with CANN" in output


def test_base_without_canns_library(images: ImageStore, stand_in_stack: Path, stand_in_folder: Path) -> None:
    remove = "rm /usr/local/Ascend/cann/lib64/libascendcl.so"
    base = changed(images, remove, "localhost/no-library")
    building = images.building(stand_in_stack, stand_in_folder, "bare-cann", base=base)
    output = refused(images, "bare-cann", building)
    assert "cannot find -lascendcl" in output
    assert "the memory saver cannot be compiled" in output


def test_base_without_vllm(images: ImageStore, stand_in_stack: Path, stand_in_folder: Path) -> None:
    building = images.building(stand_in_stack, stand_in_folder, "bare", base=fake_base.DEBIAN_IMAGE)
    output = refused(images, "bare", building)
    assert "not installed, needed vllm 0.22.1" in output
    assert "with --base" in output


def test_base_without_pip(images: ImageStore, stand_in_stack: Path, stand_in_folder: Path) -> None:
    remove = f"rm -r {fake_base.SITE}/pip {fake_base.SITE}/pip-*"
    base = changed(images, remove, "localhost/no-pip")
    building = images.building(stand_in_stack, stand_in_folder, "bare", base=base)
    output = refused(images, "bare", building)
    assert "the base image has no Python with pip" in output


def test_base_for_another_cpu_architecture(
    images: ImageStore, stand_in_stack: Path, stand_in_folder: Path, tmp_path: Path
) -> None:
    other = next(name for name in ARCHITECTURES if name != fake_sources.MACHINE)
    base, folder = "localhost/other-machine", tmp_path / "offline"
    (tmp_path / "sh").write_bytes(ElfFile(other).content())
    (tmp_path / "sh").chmod(0o755)
    container = images.buildah("from", "scratch")
    images.buildah("add", "--quiet", container, str(tmp_path / "sh"), "/bin/sh")
    images.buildah("config", "--arch", ARCHITECTURES[other], container)
    images.buildah("commit", "--quiet", container, base)
    images.buildah("rm", container)
    shutil.copytree(stand_in_folder, folder)
    vendor.collect(make_plan(str(stand_in_stack), machine=other), folder, lambda now: None)
    building = images.building(stand_in_stack, folder, "foreign", base=base)
    done = images.vimectl(*building, "--machine", other)
    assert done.returncode == 3, done.stderr
    assert "whose programs this machine cannot run" in done.stderr
    assert "qemu-user-static" in done.stderr
    assert images.leftovers() == []
    # Without --machine, the image is for this machine.
    building = images.building(stand_in_stack, stand_in_folder, "foreign", base=base)
    output = refused(images, "foreign", building)
    assert f"{base} on this machine is for {ARCHITECTURES[other]}" in output


def test_image_of_a_project_has_its_patches(images: ImageStore, stand_in_stack: Path, tmp_path: Path) -> None:
    series = tmp_path / "team/fixes"
    series.mkdir(parents=True)
    (series / "series").write_text("0001-team.patch\n0002-more.patch\n")
    (series / "0001-team.patch").write_text(NEW_FILE)
    (series / "0002-more.patch").write_text(NEW_FILE.replace("team.py", "more.py"))
    project = tmp_path / "team/vimectl.toml"
    patches = '[patches]\nvllm = ["0.22.1", "fixes"]\n[targets]\nvllm = "/nowhere"\n'
    project.write_text(f'extends = "{stand_in_stack}"\n{patches}')
    folder = tmp_path / "offline"
    vendor.collect(make_plan(str(project)), folder, lambda now: None)
    done = images.build(project, folder, "team")
    assert done.returncode == 0, done.stderr
    found = images.verify("team", "--stand-in")
    assert (found["stack"], found["problems"]) == ("team", [])
    (vllm,) = [target for target in found["patches"] if target["package"] == "vllm"]
    assert vllm["state"] == "applied"
    assert [patch["id"] for patch in vllm["patches"][-2:]] == ["0001-team", "0002-more"]
    assert "vllm-2=" in found["labels"]["vimectl.series"]
    # The project is the default in the image.
    assert "0002-more" in images.run("team", "/opt/vimectl/entrypoint.sh", "vimectl", "patch", "verify")


def test_cpu_image_runs_its_recipe(images: ImageStore, tmp_path: Path) -> None:
    folder = tmp_path / "offline"
    vendor.collect(make_plan("cpu-0.32"), folder, lambda now: None)
    arguments = ["--stack", "cpu-0.32", "--base", fake_base.DEBIAN_IMAGE, "--builder", "buildah"]
    done = images.vimectl("image", "build", *arguments, "--offline", folder, "--tag", "cpu")
    assert done.returncode == 0, done.stderr
    found = images.verify("cpu")
    assert found["problems"] == []
    assert found["labels"]["vimectl.stand-in"] == "no"
    assert {target["state"] for target in found["patches"]} == {"applied"}
    command = ["vimectl", "run", "recipe", "qwen3-tiny-tp2", "--mode", "smoke", "--run-dir", "/home/vime/run"]
    images.run("cpu", *command)
    assert images.leftovers() == []
