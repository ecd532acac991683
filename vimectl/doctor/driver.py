"""driver: the Ascend driver and firmware, by their version files, and what of them a container sees."""

from __future__ import annotations

from vimectl.doctor import ascend, npu
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.schema import Stack
from vimectl.util import npu_devices

_INFO = f"{ascend.DRIVER}/version.info"
_REINSTALL = "install driver and firmware of one release together, on the host, and reboot it"


def checks(stack: Stack) -> list[Check]:
    return [
        Check("driver.version", "libraries of the driver are loaded by every process on an NPU", _version),
        Check(
            "driver.loaded",
            "after an upgrade without a reboot, the libraries talk to a driver of another release",
            _loaded,
        ),
        Check(
            "driver.firmware",
            "driver and firmware each list which releases of the other they run with (compatible_version_*)",
            _firmware,
        ),
        Check(
            "driver.cann",
            "toolkit and driver each list which branches of the other they run with (compatible_version)",
            _cann,
        ),
        Check(
            "driver.mounts",
            "a container has no driver of its own: what it needs of the host's is mounted into it",
            _mounts,
        ),
    ]


def _version(subject: Subject) -> Outcome:
    if reason := _needless(subject):
        return skipped(reason)
    found = ascend.fields(subject.host, _INFO)
    version = found.get("package_version") or found.get("Version")
    return judged(
        version is not None,
        f"{_INFO}: {version}" if version else f"no version in {_INFO}",
        "a release of the Ascend driver",
        "install the Ascend driver (in a container: mount its version.info and lib64 into it)",
    )


def _loaded(subject: Subject) -> Outcome:
    if reason := _needless(subject):
        return skipped(reason)
    found = ascend.fields(subject.host, _INFO)
    installed = found.get("package_version") or found.get("Version")
    listing = npu.listing(subject)
    if installed is None or listing is None or listing.version is None:
        return skipped("one of npu-smi info and the driver's version.info gives no version")
    return judged(
        listing.version.casefold() == installed.casefold(),
        f"npu-smi {listing.version}, installed {installed}",
        "the same release",
        "reboot the host (in a container: mount npu-smi and the driver of the same host)",
        "warn",
    )


def _firmware(subject: Subject) -> Outcome:
    if reason := _needless(subject):
        return skipped(reason)
    firmware = ascend.fields(subject.host, f"{ascend.FIRMWARE}/version.info").get("Version")
    found = ascend.fields(subject.host, _INFO)
    accepted = found.get("compatible_version_fw", "")
    if firmware is None:
        return skipped(f"no {ascend.FIRMWARE}/version.info here; the host has it")
    if not accepted:
        return skipped(f"{_INFO} does not say which firmware it runs with")
    number = ascend.numbers(firmware)[:3]
    good = any(
        ascend.numbers(first) <= number <= ascend.numbers(last) for first, last in ascend.ranges(accepted)
    )
    return judged(good, f"firmware {firmware}", f"one of {accepted}", _REINSTALL)


def _cann(subject: Subject) -> Outcome:
    if reason := _needless(subject):
        return skipped(reason)
    home = ascend.toolkit(subject.host)
    toolkit = ascend.toolkit_info(subject.host, home, "toolkit") if home else {}
    found = ascend.fields(subject.host, _INFO)
    branches = found.get("Innerversion", ""), toolkit.get("innerversion", "")
    lists = found.get("compatible_version", ""), toolkit.get("compatible_version", "")
    if not all(map(ascend.branch, branches)) or not all(lists):
        return skipped("driver or toolkit does not say which branch it is and which it runs with")
    version = found.get("package_version") or found.get("Version")
    good = (
        ascend.branch(branches[0]) == ascend.branch(branches[1])
        or ascend.accepts(lists[0], branches[1])
        or ascend.accepts(lists[1], branches[0])
    )
    return judged(
        good,
        f"driver {version} ({branches[0]}), CANN {toolkit.get('version')} ({branches[1]})",
        f"a driver of {lists[1]}, or CANN of {lists[0]}",
        f"upgrade the driver on the host to the release that CANN {toolkit.get('version')} asks for",
    )


def _mounts(subject: Subject) -> Outcome:
    if reason := _needless(subject):
        return skipped(reason)
    engine = container(subject)
    if engine is None:
        return skipped("this is no container")
    needed = [mount.path for mount in npu_devices.host_files().mounts if mount.needed]
    lacking = [path for path in needed if not subject.host.path(path).exists()]
    options = " ".join(f"--volume {path}:{path}" for path in lacking)
    return judged(
        not lacking,
        f"{engine} container without {', '.join(lacking)}" if lacking else f"{engine} container, all mounted",
        ", ".join(needed),
        f"start the container with {options}",
    )


def container(subject: Subject) -> str | None:
    """Return what kind of container this is, or None on a machine of its own."""
    host = subject.host
    if host.path("/.dockerenv").exists():
        return "docker"
    if host.path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in host.environment:
        return "kubernetes"
    # systemd's container interface: an engine puts its name into the environment of process 1.
    for line in (host.read("/proc/1/environ") or "").split("\0"):
        name, _, value = line.partition("=")
        if name == "container" and value:
            return value
    return None


def _needless(subject: Subject) -> str | None:
    if subject.stack.stack.device != "npu":
        return f"the stack computes on {subject.stack.stack.device}"
    if not subject.host.is_running:
        return "a file system without /proc is no running machine; the driver is its host's"
    return None
