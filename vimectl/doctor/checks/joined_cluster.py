"""cluster: the cluster of a job on several nodes, as seen from this one."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.checks.cluster import external_daemons
from vimectl.doctor.facts import Facts, driver, networks
from vimectl.doctor.facts.processes import PROCESS_READS, read_ray_version, read_user
from vimectl.doctor.stack_requirements import PACKAGE_READS

CHECKS = CheckList(running=True, several=True)

# The default bridge networks: Docker's documentation of bridge networks; containers.conf(5), default_subnet.
_BRIDGES = {"172.17.0.1": "docker0", "10.88.0.1": "podman0"}


@CHECKS.add(
    "cluster.version",
    source="Ray 2.48: _private/utils.py, check_version_info (Version mismatch); Logic-RL#30",
    reads=(*PROCESS_READS, *PACKAGE_READS, "*/ray/_version.py", "/usr/local/Ascend/*"),
)
def version(facts: Facts) -> CheckResult | str:
    """A process can only join a Ray cluster of the same versions of Ray and Python."""
    own = facts.find("ray") or next(iter(facts.installed.get("ray", [])), None)
    minor = ".".join(facts.interpreter.version.split(".")[:2])
    wrong, count, proven = [], 0, False
    for one in external_daemons(facts):
        if one.program != "raylet":
            continue
        count += 1
        ray, python = facts.read(read_ray_version, one.argv[0])
        if own and ray and ray != own.version:
            wrong.append(f"raylet {one.pid} is of Ray {ray}: {one.argv[0]}")
        elif minor and python and python != minor:
            wrong.append(f"raylet {one.pid} is of Python {python}: {one.argv[0]}")
        else:
            continue
        # Any user can start a process with these arguments, which must not prevent the runs of others.
        proven = proven or one.user in (facts.read(read_user), 0, None)
    if not count:
        return "Ray does not run on this node yet"
    expected = f"Ray {own.version if own else 'of this environment'}, Python {minor or 'of this environment'}"
    fix = (
        "start a cluster with the `ray` of this environment on every node, with another --port, and give its "
        "--address; or run from the environment of the cluster that is there"
    )
    found = listed(wrong, separator="; ") or f"{count} raylet of it"
    return result(not wrong, found, expected, fix) if proven else warn_unless(not wrong, found, expected, fix)


@CHECKS.add(
    "cluster.address-reachable",
    source="Docker: bridge network driver; vllm-ascend PR 468 (--net=host); gpustack#1566",
    reads=("/proc/net/route", *driver.CONTAINER_READS),
)
def address_reachable(facts: Facts) -> CheckResult:
    """Ray, gloo and HCCL give the other nodes the address of this one. That of a container on the default
    bridge network exists on its host only.
    """
    gateway = facts.read(networks.read_gateway)
    engine = facts.read(driver.read_container)
    bridge = _BRIDGES.get(gateway, "") if engine in ("docker", "podman") else ""
    found = f"the default route is over {gateway}" if gateway else "no default route"
    return result(
        not bridge,
        f"{found}, the bridge {bridge} of {engine}" if bridge else found,
        "a network that the other nodes reach",
        "start the container with --network host, on every node",
    )
