"""The interpreter of a root file system that is examined, in the layouts of distributions and images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.stacks.installed import distributions
from vimectl.stacks.interpreters import Interpreter, examined_interpreter
from vimectl.util.host import CommandResult, Host, refuse_command

Layout = Callable[..., Host]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Make a root: programs, links (path to target), distributions by directory, and texts of files."""

    def make(
        programs: Sequence[str] = (),
        links: dict[str, str] | None = None,
        installed: dict[str, Sequence[str]] | None = None,
        texts: dict[str, str] | None = None,
        python: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Host:
        for path, text in {**dict.fromkeys(programs, "ELF"), **(texts or {})}.items():
            file = tmp_path / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for directory, names in (installed or {}).items():
            for name in names:
                (tmp_path / directory.lstrip("/") / f"{name}-1.0.dist-info").mkdir(parents=True)
        for path, target in (links or {}).items():
            link = tmp_path / path.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
        return Host(tmp_path, environment or {}, refuse_command, python)

    return make


def found(host: Host) -> tuple[str, str, tuple[str, ...]]:
    one = examined_interpreter(host)
    assert one.why
    return one.path, one.version, one.directories


def test_absolute_link_to_another_prefix_stays_in_the_root(layout: Layout) -> None:
    prefix = "/usr/local/python3.11.14"
    host = layout(
        [f"{prefix}/bin/python3.11"],
        {"/usr/local/bin/python3": f"{prefix}/bin/python3.11", f"{prefix}/bin/python3": "python3.11"},
        {f"{prefix}/lib/python3.11/site-packages": ["torch", "vllm"]},
        {f"{prefix}/include/python3.11/patchlevel.h": '#define PY_VERSION      "3.11.14"\n'},
    )
    assert found(host) == (
        "/usr/local/bin/python3",
        "3.11.14",
        (f"{prefix}/lib/python3.11/site-packages",),
    )
    assert examined_interpreter(host).others == ()


def test_link_out_of_the_root_is_no_interpreter(layout: Layout) -> None:
    host = layout(links={"/usr/bin/python3": sys.executable, "/usr/local/bin/python3": "../../../../bin/sh"})
    assert examined_interpreter(host) == Interpreter("", "", ())


@pytest.mark.parametrize(
    ("program", "directory"),
    [
        ("/usr/bin/python3.11", "/usr/local/lib64/python3.11/site-packages"),
        ("/usr/bin/python3.11", "/usr/local/lib/python3.11/site-packages"),
        ("/usr/bin/python3.11", "/usr/lib64/python3.11/site-packages"),
        ("/usr/bin/python3.10", "/usr/local/lib/python3.10/dist-packages"),
        ("/usr/bin/python3.10", "/usr/lib/python3/dist-packages"),
        ("/usr/local/bin/python3.12", "/usr/local/lib/python3.12/site-packages"),
        ("/usr/local/bin/python3.12", "/root/.local/lib/python3.12/site-packages"),
        ("/usr/local/python3.11.14/bin/python3.11", "/usr/local/python3.11.14/lib/python3.11/site-packages"),
        ("/root/miniconda3/bin/python3.11", "/root/miniconda3/lib/python3.11/site-packages"),
        (
            "/root/conda/envs/npu/bin/python3.11",
            "/root/conda/envs/npu/lib/python3.11/site-packages",
        ),
        ("/opt/conda/envs/npu/bin/python3.10", "/opt/conda/envs/npu/lib/python3.10/site-packages"),
        (
            "/home/ma-user/anaconda3/envs/PyTorch-2.1.0/bin/python3.9",
            "/home/ma-user/anaconda3/envs/PyTorch-2.1.0/lib/python3.9/site-packages",
        ),
        ("/app/.venv/bin/python3.11", "/app/.venv/lib/python3.11/site-packages"),
        ("/workspace/env/bin/python3.11", "/workspace/env/lib/python3.11/site-packages"),
    ],
)
def test_packages_of_a_layout_are_found(layout: Layout, program: str, directory: str) -> None:
    name = Path(program).name
    links = {str(Path(program).with_name("python3")): name}
    host = layout([program], links, {directory: ["vllm", "torch"]})
    path, version, directories = found(host)
    assert (path, directories) == (str(Path(program).with_name("python3")), (directory,))
    assert version == name.removeprefix("python")
    assert set(distributions(host)) == {"vllm", "torch"}


def test_packages_without_a_program_are_found(layout: Layout) -> None:
    directory = "/opt/env/lib/python3.11/site-packages"
    assert found(layout(installed={directory: ["vllm"]})) == (directory, "3.11", (directory,))


def test_most_packages_of_a_stack_decide_and_the_others_are_named(layout: Layout) -> None:
    own, system = "/root/miniconda3/lib/python3.11/site-packages", "/usr/lib/python3/dist-packages"
    host = layout(
        ["/usr/bin/python3.10", "/root/miniconda3/bin/python3.11"],
        {"/usr/bin/python3": "python3.10", "/root/miniconda3/bin/python3": "python3.11"},
        {own: ["vllm", "torch"], system: ["torch", "requests", "pyyaml"]},
    )
    one = examined_interpreter(host)
    assert (one.path, one.packages) == ("/root/miniconda3/bin/python3", 2)
    assert one.others == ("/usr/bin/python3",)
    assert one.why == "2 packages of a stack; /usr/bin/python3, the default one, has 1"


def test_first_on_the_path_of_an_image_is_examined_of_equal_ones(layout: Layout) -> None:
    own, system = "/opt/vimectl/env/lib/python3.11/site-packages", "/usr/local/lib/python3.11/site-packages"
    host = layout(installed={own: ["vllm"], system: ["vllm"]})
    assert examined_interpreter(host).path == system
    host = Host(host.root, {"PATH": "/opt/vimectl/env/bin:/usr/local/bin"}, refuse_command)
    assert examined_interpreter(host).path == own
    assert examined_interpreter(host).others == (system,)


@pytest.mark.parametrize("shared", [True, False])
def test_virtual_environment_may_include_the_packages_of_its_base(layout: Layout, shared: bool) -> None:
    own, base = "/opt/env/lib/python3.11/site-packages", "/usr/local/lib/python3.11/site-packages"
    host = layout(
        ["/usr/local/bin/python3.11"],
        {"/opt/env/bin/python": "/usr/local/bin/python3.11", "/opt/env/lib64": "lib"},
        {own: ["vllm", "torch"], base: ["numpy"]},
        {"/opt/env/pyvenv.cfg": f"home = /usr/local/bin\ninclude-system-site-packages = {shared}\n".lower()},
    )
    path, _, directories = found(host)
    # lib64 is a link to lib: the same directory under another name.
    own = own.replace("/lib/", "/lib64/")
    assert (path, directories) == ("/opt/env/bin/python", (own, base) if shared else (own,))


def test_copied_program_of_a_virtual_environment_names_its_base(layout: Layout) -> None:
    base = "/usr/local/lib/python3.11/site-packages"
    host = layout(
        ["/opt/env/bin/python3.11"],
        installed={"/opt/env/lib/python3.11/site-packages": ["vllm"], base: ["numpy"]},
        texts={"/opt/env/pyvenv.cfg": "home = /usr/local/bin\ninclude-system-site-packages = true\n"},
        python="/opt/env",
    )
    assert found(host)[2][-1] == base


def test_pth_files_and_pythonpath_add_directories(layout: Layout) -> None:
    site = "/usr/local/lib/python3.11/site-packages"
    lines = "# a comment\nimport os\n/workspace/vllm\n../extra\n/nowhere\n"
    host = layout(
        ["/usr/local/bin/python3.11"],
        installed={site: ["torch"], "/usr/local/lib/python3.11/extra": ["numpy"]},
        texts={f"{site}/vllm.pth": lines, "/workspace/vllm/setup.py": "", "/cann/python/acl.so": ""},
        environment={"PYTHONPATH": "/cann/python:/absent"},
    )
    assert found(host)[2] == ("/cann/python", site, "/workspace/vllm", f"{site}/../extra")
    assert set(distributions(host)) == {"torch", "numpy"}


def test_given_interpreter_is_examined(layout: Layout) -> None:
    one, other = "/opt/a/lib/python3.11/site-packages", "/opt/b/lib/python3.11/site-packages"
    layout(
        ["/opt/a/bin/python3.11", "/opt/b/bin/python3.11"],
        installed={one: ["vllm", "torch"], other: ["vllm"]},
    )
    for given in ("/opt/b", "/opt/b/bin/python3.11"):
        assert found(layout(python=given)) == ("/opt/b/bin/python3.11", "3.11", (other,))
        assert examined_interpreter(layout(python=given)).why == "--python"
    with pytest.raises(UsageError, match="no Python interpreter at /opt/c"):
        examined_interpreter(layout(python="/opt/c"))


def test_running_machine_is_that_of_this_interpreter() -> None:
    one = examined_interpreter(Host())
    assert (one.path, one.why) == (sys.executable, "it runs vimectl")
    assert Path(pytest.__file__).parent.parent in map(Path, one.directories)


def test_given_interpreter_of_the_running_machine_is_asked() -> None:
    one = examined_interpreter(Host(given_python=sys.prefix))
    assert (one.why, one.version) == ("--python", sys.version.split()[0])
    assert Path(one.path).parent == Path(sys.prefix, "bin")
    assert Path(pytest.__file__).parent.parent in map(Path, one.directories)


@pytest.mark.parametrize("answer", [CommandResult(127, "", "x: not found"), CommandResult(0, "hello\n")])
def test_program_that_is_no_python_is_refused(answer: CommandResult) -> None:
    with pytest.raises(UsageError, match="does not run as Python"):
        examined_interpreter(Host(run=lambda argv, timeout: answer, given_python="/bin/true"))
