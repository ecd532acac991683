"""driver: the Ascend driver is whole, reaches this process, and fits the firmware and CANN."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable, ascend_dmi, cann, driver, loader, npu_smi
from vimectl.util.npu_devices import MOUNTS

CHECKS = CheckList(device="npu", running=True)

_LIBRARY = "libascend_hal.so"
# Where the driver's installer puts its libraries, and what it writes to /etc/ld.so.conf.d.
_DIRECTORIES = ("/usr/local/Ascend/driver/lib64/common", "/usr/local/Ascend/driver/lib64/driver")
_INSTALLER = "CANN driver, so_ldconfig() of its installer: /etc/ld.so.conf.d/ascend_driver_so.conf"


@CHECKS.add(
    "driver.version",
    source="vllm-ascend 0.22.1rc1, installation guide, `docker run`",
    reads=(driver.INFO,),
    after=("driver.mounts",),
)
def driver_version(facts: Facts) -> CheckResult:
    """Every process on an NPU loads libraries of the driver."""
    version = facts.read(driver.read_version)
    return result(
        bool(version),
        f"{driver.INFO}: {version}" if version else f"no version in {driver.INFO}",
        "a release of the Ascend driver",
        "install the Ascend driver (in a container: mount its version.info and lib64 into it)",
    )


@CHECKS.add(
    "driver.libraries",
    source=_INSTALLER,
    reads=(*loader.READS, "/usr/local/Ascend/driver/*"),
    after=("driver.mounts", "driver.version"),
)
def libraries(facts: Facts) -> CheckResult:
    """CANN loads libascend_hal.so of the driver. The loader finds it by LD_LIBRARY_PATH or /etc/ld.so.conf:
    the driver's installer adds its directories there, on the host only.
    """
    found = facts.read(loader.find_library, _LIBRARY)
    path = ":".join(_DIRECTORIES)
    fix = f"export LD_LIBRARY_PATH={path}:$LD_LIBRARY_PATH"
    here = [f"{directory}/{_LIBRARY}" for directory in _DIRECTORIES]
    if len(facts.missing(here)) == len(here):
        fix = f"install the Ascend driver (in a container: mount {MOUNTS[0].path} into it)"
    return result(
        bool(found),
        found or f"the loader does not find {_LIBRARY}",
        f"{_LIBRARY} by LD_LIBRARY_PATH or /etc/ld.so.conf",
        fix,
    )


@CHECKS.add(
    "driver.loaded",
    source="a rule of vimectl: npu-smi prints the version of the loaded driver",
    reads=(driver.INFO, "npu-smi info"),
)
def driver_loaded(facts: Facts) -> CheckResult:
    """After an upgrade without a reboot, the libraries talk to a driver of another release."""
    installed, loaded = facts.read(driver.read_version), facts.read(npu_smi.read_listing).version
    if not installed or loaded is None:
        raise Unavailable("npu-smi info or the driver's version.info has no version")
    return warn_unless(
        loaded.casefold() == installed.casefold(),
        f"npu-smi {loaded}, installed {installed}",
        "the same release",
        "reboot the host (in a container: mount npu-smi and the driver of the same host)",
    )


@CHECKS.add(
    "driver.firmware",
    source="version.info of driver 25.5.1 (compatible_version_fw)",
    reads=(driver.INFO, driver.FIRMWARE_INFO),
)
def firmware(facts: Facts) -> CheckResult:
    """Driver and firmware each list which releases of the other they support (compatible_version_*)."""
    version = facts.read(driver.read_fields, driver.FIRMWARE_INFO)["Version"]
    if not version:
        raise Unavailable(f"no {driver.FIRMWARE_INFO} here; the host has it")
    supported = facts.read(driver.read_fields, driver.INFO)["compatible_version_fw"]
    if not supported:
        raise Unavailable(f"{driver.INFO} does not list the firmware that it supports")
    return result(
        driver.accepts(supported, driver.parse_release(version)[:3], driver.parse_release),
        f"firmware {version}",
        f"one of {supported}",
        "install driver and firmware of one release together, on the host, and reboot it",
    )


@CHECKS.add(
    "driver.cann",
    source="compatible_version in version.info (driver) and install.info (CANN); vllm-ascend#5468",
    reads=(driver.INFO, *cann.TOOLKIT_READS),
    after=("cann.toolkit",),
)
def driver_cann(facts: Facts) -> CheckResult:
    """Toolkit and driver each list which branches of the other they support (compatible_version). If they
    do not fit, the toolkit is at fault if it is not the stack's, otherwise the driver.
    """
    driver_info = facts.read(driver.read_fields, driver.INFO)
    cann_info = facts.read(cann.read_install_info, facts.read(cann.read_home))
    branch, cann_branch = driver_info["Innerversion"], cann_info["innerversion"]
    cann_supported, driver_supported = driver_info["compatible_version"], cann_info["compatible_version"]
    own, other = driver.parse_branch(branch), driver.parse_branch(cann_branch)
    if not (own and other and cann_supported and driver_supported):
        raise Unavailable("driver or toolkit does not say which branch it is and which branches it supports")
    version = cann_info["version"]
    fix = f"install CANN {facts.stack.cann}, which the stack needs; then check its driver again"
    if cann.is_stack_version(facts.stack, version):
        fix = (
            f"upgrade the driver on the host to a release whose version.info has an Innerversion of "
            f"{driver_supported}, with its firmware; CANN {version} is right"
        )
    return result(
        own == other
        or driver.accepts(cann_supported, other, driver.parse_branch)
        or driver.accepts(driver_supported, own, driver.parse_branch),
        f"driver {facts.read(driver.read_version)} ({branch}), CANN {version} ({cann_branch})",
        f"a driver of {driver_supported}, or CANN of {cann_supported}",
        fix,
    )


@CHECKS.add(
    "driver.mounts",
    source="vllm-ascend 0.22.1rc1, installation guide; vllm-ascend#1440, ascend-device-plugin#23",
    reads=(*driver.CONTAINER_READS, *(f"{mount.path}*" for mount in MOUNTS)),
)
def mounts(facts: Facts) -> CheckResult:
    """A container has no driver: what it needs of the host's driver is mounted into it. Docker makes an empty
    directory of a path that the host does not have.
    """
    engine = facts.read(driver.read_container)
    if engine is None:
        raise Unavailable("this is not a container")
    problems, needed = facts.read(driver.read_mounts), [mount.path for mount in MOUNTS if mount.needed]
    wrong = {path: problems[path] for path in needed if problems[path]}
    absent = [path for path, problem in wrong.items() if problem == "absent"]
    broken = [f"{path} is {problem}" for path, problem in wrong.items() if problem != "absent"]
    parts = [f"without {', '.join(absent)}" if absent else "", f"where {', '.join(broken)}" if broken else ""]
    found = ", ".join(filter(None, parts))
    return result(
        not wrong,
        f"{engine} container {found or 'with all that is needed'}",
        ", ".join(needed),
        mount_fix(engine, list(wrong), bool(broken)),
    )


def mount_fix(engine: str, paths: list[str], broken: bool = False) -> str:
    """Return how to mount these paths; ``broken``: some are mounted from where the host has nothing."""
    fix = f"start the container with {' '.join(f'--volume {path}:{path}' for path in paths)}"
    if engine == "kubernetes":
        fix = f"mount these into the pod, each as a hostPath volume of the same path: {', '.join(paths)}"
    if broken:
        fix += (
            "; the host has no such path: mount them from where its driver is, which "
            "/etc/ascend_install.info on the host says (Driver_Install_Path_Param)"
        )
    return fix


@CHECKS.add(
    "driver.ascend-dmi",
    source="MindCluster ToolBox 7.3, ascend-dmi -c (mindcluster/730/toolbox/toolboxug_0022.html)",
    reads=("ascend-dmi -c", "/usr/local/Ascend/toolbox/*"),
    after=("cann.toolkit", "driver.cann", "driver.firmware"),
)
def compatibility(facts: Facts) -> CheckResult:
    """`ascend-dmi -c` compares driver, firmware and CANN; INCOMPATIBLE PACKAGE means that two do not fit."""
    lines = facts.read(ascend_dmi.read_compatibility)
    wrong = [line for line in lines if ascend_dmi.INCOMPATIBLE in line]
    return result(
        not wrong,
        listed(wrong, separator="; ")
        if wrong
        else f"{len(lines)} lines, none with {ascend_dmi.INCOMPATIBLE}",
        "every package OK",
        "install the package of the release that the others are of, as `ascend-dmi -c` shows in full",
    )
