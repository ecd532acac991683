"""uv with the configuration of pip, against servers that have what pip's options are for."""

from __future__ import annotations

import base64
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uv as uv_package
from uv import find_uv_bin
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from harness import REPOSITORY
from harness.patches.index_server import Index, serving
from harness.tiny_stack import tiny_wheel
from harness.wheels import write_wheel
from vimectl.env.installer import UvInstaller
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import Origin
from vimectl.util.phase_progress import PhaseProgress

BASIC = "Basic " + base64.b64encode(b"me@home:s/cret").decode()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return tiny_wheel(tmp_path / "wheels", "alpha", "1.0")


@pytest.fixture
def pin(wheel: Path, tmp_path: Path) -> Pin:
    (tmp_path / "lock.txt").write_text(f"alpha==1.0 --hash=sha256:{sha256_file(wheel)}\n")
    return read_lock(tmp_path / "lock.txt")["alpha"]


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UvInstaller]:
    """uv with an environment and an empty cache; pip's own configuration is empty."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("NETRC", "/dev/null")
    (tmp_path / "env").mkdir()
    lock_fd = os.open(tmp_path / "env", os.O_RDONLY)
    made = UvInstaller(tmp_path / "env", lock_fd, tmp_path / "work", lambda now: None)
    made.make_environment(Path(sys.executable))
    yield made
    os.close(lock_fd)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., None]:
    """Write pip's configuration file; every option as pip spells it."""

    def write(**options: object) -> None:
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in options.items()]
        (tmp_path / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))

    return write


def is_installed(uv: UvInstaller, name: str = "alpha") -> bool:
    return any(uv.directory.glob(f"lib/python3*/site-packages/{name}.py"))


def test_login_in_the_url_of_an_index(
    uv: UvInstaller, wheel: Path, pin: Pin, index: Index, configure: Callable[..., None]
) -> None:
    index.password, index.files[wheel.name] = BASIC, wheel.read_bytes()
    configure(index_url=index.url.replace("//", "//me%40home:s%2Fcret@"))
    uv.install([pin], {})
    assert is_installed(uv)
    assert "cret" not in uv.log.read_text()


def test_login_in_netrc(
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    index: Index,
    configure: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index.password, index.files[wheel.name] = BASIC, wheel.read_bytes()
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me@home password s/cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    configure(index_url=index.url)
    uv.install([pin], {})
    assert is_installed(uv)


def test_file_of_an_extra_index_counts_as_one_of_the_first(
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    index: Index,
    other_index: Index,
    configure: Callable[..., None],
    tmp_path: Path,
) -> None:
    other = tiny_wheel(tmp_path / "other", "alpha", "2.0")
    index.files[other.name] = other.read_bytes()
    other_index.files[wheel.name] = wheel.read_bytes()
    configure(index_url=index.url, extra_index_url=other_index.url)
    uv.install([pin], {})
    assert is_installed(uv)


def test_folder_with_a_comma_and_a_space_and_one_that_does_not_exist(
    uv: UvInstaller, wheel: Path, pin: Pin, configure: Callable[..., None], tmp_path: Path
) -> None:
    folder = wheel.parent.rename(tmp_path / "a, b")
    configure(no_index="true", find_links=f"\n  {folder.as_uri()}\n  /nonexistent/wheels")
    uv.install([pin], {})
    assert is_installed(uv)


def test_constraint_that_excludes_a_pin(
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    configure: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "my constraints.txt").write_text("alpha<1.0\n")
    configure(no_index="true", find_links=wheel.parent)
    uv.install([pin], {})
    uv.uninstall(["alpha"])
    monkeypatch.setenv("PIP_CONSTRAINT", (tmp_path / "my constraints.txt").as_uri())
    del uv.config  # it is read once
    with pytest.raises(CheckFailed, match=r"alpha==1.0 and alpha<1.0"):
        uv.install([pin], {})
    assert not is_installed(uv)


@pytest.mark.needs("openssl")
def test_certificates_and_trusted_hosts(
    uv: UvInstaller, wheel: Path, pin: Pin, configure: Callable[..., None], tmp_path: Path
) -> None:
    both, request = tmp_path / "both.pem", "req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=localhost"
    command = ["openssl", *request.split(), "-keyout", both, "-out", tmp_path / "cert.pem"]
    extensions = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run([*command, *extensions], check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "cert.pem").read_text())
    with serving(both) as index:
        index.files[wheel.name] = wheel.read_bytes()
        url = f"https://localhost:{index.port}/simple"
        configure(index_url=url)
        with pytest.raises(MissingRequirement, match="certificate"):
            uv.install([pin], {})
        for trusted in ({"cert": tmp_path / "cert.pem"}, {"trusted_host": "localhost"}):
            configure(index_url=url, **trusted)
            del uv.config
            uv.install([pin], {})
            assert is_installed(uv)
            uv.uninstall(["alpha"])
            uv.forget(["alpha"])


def test_proxy(
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    index: Index,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_PROXY")
    # A proxy gets whole URLs; this server serves them by their path.
    index.files[wheel.name] = wheel.read_bytes()
    configure(index_url="http://packages.invalid/simple", proxy=f"http://127.0.0.1:{index.port}")
    uv.install([pin], {})
    assert is_installed(uv)
    assert any(one.startswith("http://packages.invalid/simple/alpha/") for one in index.requests)


def test_variable_of_uv_wins(
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(index_url="http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/other")
    with pytest.raises(MissingRequirement, match=r"127.0.0.1:9/other/alpha/.*: Connection refused"):
        uv.install([pin], {})


def test_other_file_is_refused(
    uv: UvInstaller, wheel: Path, pin: Pin, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sha256_file(wheel)
    tiny_wheel(wheel.parent, "alpha", "1.0", "version = 'another'\n")
    configure(no_index="true", find_links=wheel.parent)
    monkeypatch.setenv("UV_NO_VERIFY_HASHES", "1")
    found = f"another alpha 1.0: sha256 {sha256_file(wheel)}, expected sha256 {expected}"
    with pytest.raises(CheckFailed, match=found):
        uv.install([pin], {})
    assert not is_installed(uv)


def test_package_that_no_source_has(
    uv: UvInstaller, pin: Pin, index: Index, configure: Callable[..., None]
) -> None:
    configure(index_url=index.url)
    with pytest.raises(MissingRequirement, match=r"pip's sources offer no wheel of alpha 1.0"):
        uv.install([pin], {})


@pytest.mark.parametrize("status", [401, 403, 404])
def test_extra_index_that_refuses_is_ignored(
    status: int,
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    index: Index,
    other_index: Index,
    configure: Callable[..., None],
) -> None:
    index.files[wheel.name] = wheel.read_bytes()
    other_index.failures = [status] * 3
    configure(index_url=index.url, extra_index_url=other_index.url)
    uv.install([pin], {})
    assert is_installed(uv)
    assert other_index.requests


def answer_500(index: Index) -> None:
    index.failures = [500]


def break_off(index: Index) -> None:
    index.cuts = [100] * 9  # also of what it tries by itself


@pytest.mark.parametrize("fail", [answer_500, break_off])
def test_server_that_fails(
    fail: Callable[[Index], None],
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    index: Index,
    configure: Callable[..., None],
) -> None:
    index.files[wheel.name] = wheel.read_bytes()
    fail(index)
    configure(index_url=index.url)
    with pytest.raises(MissingRequirement, match="downloading failed: ") as error:
        uv.install([pin], {})
    assert "resumes" in error.value.hint
    index.failures, index.cuts = [], []
    uv.install([pin], {})
    assert is_installed(uv)


def test_cache_that_cannot_be_written(
    uv: UvInstaller, pin: Pin, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(no_index="true")
    monkeypatch.setenv("UV_CACHE_DIR", "/proc/none/uv")
    with pytest.raises(MissingRequirement, match="cache at `/proc/none/uv`") as error:
        uv.install([pin], {})
    assert "UV_CACHE_DIR" in error.value.hint


def test_index_of_an_origin_is_used_for_its_package_alone(
    uv: UvInstaller,
    wheel: Path,
    pin: Pin,
    index: Index,
    other_index: Index,
    configure: Callable[..., None],
    tmp_path: Path,
) -> None:
    beta = tiny_wheel(tmp_path / "beta", "beta", "1.0")
    index.files[beta.name] = beta.read_bytes()
    other_index.files = {wheel.name: wheel.read_bytes(), beta.name: beta.read_bytes()}
    other_index.html = True
    configure(index_url=index.url)
    origin = Origin.model_construct(index=other_index.url)
    second = Pin(
        "beta", "1.0", frozenset({sha256_file(beta)}), f"beta==1.0 --hash=sha256:{sha256_file(beta)}"
    )
    uv.install([second, pin], {"alpha": origin})
    assert is_installed(uv)
    assert is_installed(uv, "beta")
    assert {request.split("/")[2] for request in other_index.requests if "simple" in request} == {"alpha"}


def test_index_of_an_origin_that_cannot_be_reached(
    uv: UvInstaller, pin: Pin, index: Index, configure: Callable[..., None]
) -> None:
    configure(index_url=index.url)
    origin = Origin.model_construct(index="http://127.0.0.1:9/cpu")
    with pytest.raises(MissingRequirement, match=r"no alpha 1.0, and http://127.0.0.1:9/cpu cannot") as error:
        uv.install([pin], {"alpha": origin})
    assert "find-links" in error.value.hint


def test_package_for_this_machine_that_no_source_has(
    uv: UvInstaller, pin: Pin, index: Index, configure: Callable[..., None]
) -> None:
    configure(index_url=index.url)
    marker = f"platform_machine == '{platform.machine()}'"
    text = pin.text.replace("alpha==1.0", f"alpha==1.0 ; {marker}")
    index.files["alpha-2.0-py3-none-any.whl"] = b"another version"
    with pytest.raises(MissingRequirement, match=r"pip's sources offer no wheel of alpha 1.0"):
        uv.install([replace(pin, text=text)], {})


def test_progress_has_the_megabytes_of_large_files(
    uv: UvInstaller, index: Index, configure: Callable[..., None], tmp_path: Path
) -> None:
    wheel = write_wheel(tmp_path / "large", "gamma", files={"gamma.bin": os.urandom(3 * 2**20)})
    index.files[wheel.name] = wheel.read_bytes()
    configure(index_url=index.url)
    seen: list[PhaseProgress] = []
    uv.report = seen.append
    uv.install([Pin("gamma", "1.0", frozenset(), f"gamma==1.0 --hash=sha256:{sha256_file(wheel)}")], {})
    assert PhaseProgress("downloading", 0, 3, "MB", detail="gamma") in seen
    assert seen[-1].phase == "installing"


def test_command_installs_into_its_own_environment(
    uv: UvInstaller, wheel: Path, configure: Callable[..., None], tmp_path: Path
) -> None:
    """The Makefile runs it before any third-party package but uv is there."""
    configure(no_index="true", find_links=wheel.parent)
    (tmp_path / "lock.txt").write_text(f"alpha==1.0 --hash=sha256:{sha256_file(wheel)}\n")
    packages = Path(uv_package.__file__).parents[1]
    site = next(uv.directory.glob("lib/python3*/site-packages"))
    for name in ("uv", "pip"):
        (site / name).symlink_to(packages / name)
    (uv.python.parent / "uv").symlink_to(find_uv_bin())
    done = subprocess.run(
        [uv.python, "-m", "vimectl.env.uv", "-q", "-r", str(tmp_path / "lock.txt")],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'runtime'}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert is_installed(uv)
