"""The options to start a container, on described hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.doctor.described_machine import Machine
from vimectl.cli import run_cli
from vimectl.images.run_args import compose, run_options
from vimectl.stacks.catalog import load_stack
from vimectl.util import npu_devices
from vimectl.util.host import Host

DRIVER = [mount.path for mount in npu_devices.MOUNTS]


def with_driver(name: str, folder: Path) -> Host:
    """Return a described host with a complete driver."""
    machine = Machine(name, folder)
    for path in DRIVER:
        if not machine.path(path).exists():
            machine.path(path).mkdir(parents=True)
    return machine.host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with eight NPUs."""
    return with_driver("a2-host", tmp_path)


def texts(host: Host) -> list[str]:
    return [option.text for option in run_options(load_stack("ascend-0.22"), host)]


def test_options_have_devices_driver_group_and_limits(host: Host) -> None:
    assert texts(host) == [
        *(f"--device=/dev/davinci{number}" for number in range(8)),
        "--device=/dev/davinci_manager",
        "--device=/dev/devmm_svm",
        "--device=/dev/hisi_hdc",
        *(f"--volume={path}:{path}" for path in DRIVER),
        "--group-add=1000",
        "--network=host",
        "--ulimit=memlock=-1",
        "--shm-size=773063m",  # half of the host's 1583234048 kB
        "--pids-limit=-1",
    ]


def test_sixteen_npus_are_in_numeric_order(tmp_path: Path) -> None:
    assert texts(with_driver("a3-host", tmp_path))[:16] == [
        f"--device=/dev/davinci{number}" for number in range(16)
    ]


def test_missing_optional_file_is_not_mounted(host: Host) -> None:
    host.path("/etc/hccn.conf").unlink()
    assert not [text for text in texts(host) if "hccn.conf" in text]


def test_incomplete_driver_is_reported(host: Host) -> None:
    host.path("/usr/local/dcmi").rmdir()
    host.path("/dev/hisi_hdc").unlink()
    with pytest.raises(MissingRequirement, match="incomplete: /dev/hisi_hdc, /usr/local/dcmi not found"):
        texts(host)


def test_host_without_npus_only_has_options_for_a_cpu_stack(tmp_path: Path) -> None:
    host = Machine("cpu-host", tmp_path).host
    with pytest.raises(MissingRequirement, match="this machine has no NPU") as error:
        texts(host)
    assert error.value.exit_code == 3
    found = run_options(load_stack("cpu-0.32"), host)
    assert [option.name for option in found] == ["shm-size", "pids-limit"]


def test_compose_file_has_the_same_options(host: Host) -> None:
    yaml = pytest.importorskip("yaml")
    found = run_options(load_stack("ascend-0.22"), host)
    (service,) = yaml.safe_load(compose(found, "vimectl:own"))["services"].values()
    assert service == {
        "image": "vimectl:own",
        "devices": [option.value for option in found if option.name == "device"],
        "volumes": [option.value for option in found if option.name == "volume"],
        "group_add": ["1000"],
        "network_mode": "host",
        "ulimits": {"memlock": -1},
        "shm_size": "773063m",
        "pids_limit": -1,
    }
    # No option is missing, also none that is added later.
    output = [value for key, value in service.items() if key != "image"]
    assert len(found) == sum(len(value) if isinstance(value, list | dict) else 1 for value in output)


def test_options_are_printed_one_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["image", "run-args", "--stack", "cpu-0.32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("--") and " " not in line for line in lines)
