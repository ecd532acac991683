"""network: the NPUs of a job on several nodes reach those of the other nodes."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.checks.chips import used_positions
from vimectl.doctor.checks.driver import mount_fix
from vimectl.doctor.facts import Facts, Unavailable, driver, hccn, networks
from vimectl.util import npu_devices

CHECKS = CheckList(device="npu", running=True, several=True)

# MindCluster counts these as healthy (ascend-common/devmanager/hccn/hccn.go, GetNetworkHealthy).
_HEALTHY = ("Success", "Init")
_GUIDE = "vllm-ascend 0.22.1rc1, multi-node guides"
_TOOL = ("*hccn_tool *", "/dev", "$ASCEND_RT_VISIBLE_DEVICES")


def _used_answers(facts: Facts, option: str) -> dict[int, str]:
    """Return the answers for the NPUs of the job. Raises Unavailable with them if none has a value."""
    answers = facts.read(hccn.read_answers, option)
    if not answers:
        raise Unavailable("there is no hccn_tool (network.files)")
    numbers = facts.read(npu_devices.device_numbers)
    used = [numbers[position] for position in used_positions(facts, len(numbers))]
    found = {number: answers[number] for number in used if number in answers}
    if not any(hccn.parse(option, answer) for answer in found.values()):
        text = "; ".join(f"NPU {number}: {' / '.join(one.splitlines())}" for number, one in found.items())
        raise Unavailable(f"hccn_tool {option} -g gives no known answer: {text[:500]}")
    return found


def _unknown(option: str, answers: dict[int, str]) -> str:
    """Return the answers without a value as text, to follow what was found."""
    unknown = [
        f"NPU {number}: {' / '.join(answer.splitlines())}"
        for number, answer in answers.items()
        if not hccn.parse(option, answer)
    ]
    return f"; no value: {listed(unknown, separator='; ')}" if unknown else ""


def _numbers(numbers: list[int]) -> str:
    return ", ".join(f"NPU {number}" for number in numbers)


@CHECKS.add(
    "network.files",
    source=f"{_GUIDE}; vllm-ascend#7711",
    reads=(
        "/etc/hccn.conf*",
        *_TOOL,
        *driver.CONTAINER_READS,
        *(f"{mount.path}*" for mount in npu_devices.MOUNTS),
    ),
    after=("driver.mounts",),
)
def files(facts: Facts) -> CheckResult:
    """Communication between nodes needs the addresses of the NPUs: /etc/hccn.conf has them, and hccn_tool
    reads them. Without them responses can be wrong, with no error.
    """
    problems = facts.read(driver.read_mounts)
    wrong = {mount.path: problems[mount.path] for mount in npu_devices.MOUNTS if mount.several}
    if wrong[hccn.TOOL] and facts.read(hccn.read_tool):
        wrong[hccn.TOOL] = ""  # it is elsewhere on PATH
    absent = [path for path, problem in wrong.items() if problem]
    engine = facts.read(driver.read_container)
    fix = "give each NPU its address, which writes the file: hccn_tool -i N -ip -s address A netmask M"
    if engine:
        fix = mount_fix(engine, absent, any(wrong[path] != "absent" for path in absent))
    return result(
        not absent,
        ", ".join(f"{path}: {wrong[path]}" for path in absent) or "both are there",
        ", ".join(wrong),
        fix,
    )


@CHECKS.add(
    "network.addresses",
    source="vllm-ascend#16847: the address that hccn_tool reports counts",
    reads=("/etc/hccn.conf", *_TOOL),
    after=("network.files",),
)
def addresses(facts: Facts) -> CheckResult:
    """Peers connect to the addresses in /etc/hccn.conf: they must be those that the NPUs have."""
    answers = _used_answers(facts, hccn.ADDRESS)
    configured = facts.read(networks.read_hccn_addresses)
    if not configured:
        raise Unavailable("/etc/hccn.conf has no addresses (network.files)")
    wrong, fixes = [], []
    for number, answer in answers.items():
        own, given = hccn.parse(hccn.ADDRESS, answer), configured.get(number, "").partition("/")[0]
        if not own or own == given:
            continue
        wrong.append(f"NPU {number} has {own}, /etc/hccn.conf {given or 'no address of it'}")
        mask = hccn.parse_netmask(answer) or "MASK"
        fixes.append(f"hccn_tool -i {number} -ip -s address {own} netmask {mask}")
    return result(
        not wrong,
        (listed(wrong, 8, "; ") or f"{len(answers)} as in /etc/hccn.conf") + _unknown(hccn.ADDRESS, answers),
        "the same address in both",
        f"as root on the host, which writes the file: {' && '.join(fixes)}",
    )


@CHECKS.add(
    "network.link",
    source=f"{_GUIDE} (the status must be UP); MindCluster, fault diagnosis guide",
    reads=_TOOL,
    after=("network.files",),
)
def link(facts: Facts) -> CheckResult:
    """The network port of every NPU of the job must be up."""
    answers = _used_answers(facts, hccn.LINK)
    states = {number: hccn.parse(hccn.LINK, answer) for number, answer in answers.items()}
    down = [f"NPU {number} {state}" for number, state in states.items() if state not in ("UP", "")]
    return result(
        not down,
        (listed(down, 8) or f"{len(states)} NPUs up") + _unknown(hccn.LINK, answers),
        "UP",
        "check cable, optical module and switch port: hccn_tool -i N -optical -g, and -link_stat -g",
    )


@CHECKS.add(
    "network.tls",
    source="HCCL troubleshooting guide: TLS switches in one communicator must be the same",
    reads=_TOOL,
    after=("network.files",),
)
def tls(facts: Facts) -> CheckResult:
    """NPUs with TLS cannot connect to those without: the switch must be the same on all, of all nodes."""
    answers = _used_answers(facts, hccn.TLS)
    switches: dict[str, list[int]] = {}
    for number, answer in answers.items():
        if switch := hccn.parse(hccn.TLS, answer):
            switches.setdefault(switch, []).append(number)
    texts = [f"switch {switch}: {_numbers(numbers)}" for switch, numbers in sorted(switches.items())]
    odd = [number for switch, numbers in switches.items() if switch != "0" for number in numbers]
    return result(
        len(switches) == 1,
        "; ".join(texts) + _unknown(hccn.TLS, answers),
        "the same switch on all NPUs",
        "as root on the host, on every node: "
        + " && ".join(f"hccn_tool -i {number} -tls -s enable 0" for number in odd),
    )


@CHECKS.add(
    "network.health",
    source=f"{_GUIDE} (the results must all be Success); CANN driver, g_net_health_status",
    reads=_TOOL,
    after=("network.files", "network.link", "network.addresses"),
)
def net_health(facts: Facts) -> CheckResult:
    """Each NPU pings an address of its network (netdetect): Init means that none is configured."""
    answers = _used_answers(facts, hccn.HEALTH)
    states = {number: hccn.parse(hccn.HEALTH, answer) for number, answer in answers.items()}
    bad = [f"NPU {number} {state}" for number, state in states.items() if state and state not in _HEALTHY]
    return warn_unless(
        not bad,
        (listed(bad, 8) or f"{len(states)} NPUs reach their network") + _unknown(hccn.HEALTH, answers),
        " or ".join(_HEALTHY),
        "compare the pinged address with the gateway: hccn_tool -i N -netdetect -g, and -gateway -g",
    )
