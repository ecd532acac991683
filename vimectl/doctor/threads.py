"""environment: how many threads each rank computes with, and on which cores."""

from __future__ import annotations

from vimectl.doctor import limits
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.doctor.variables import of_recipe, values
from vimectl.recipes.environment import Role, allowed_cores

_THREADS, _CORES = "OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"


def checks() -> list[Check]:
    return [
        Check("environment.threads", f"{_THREADS}: more threads than cores slow all of them", _threads),
        Check(
            "environment.cores",
            f"{_CORES}: vLLM wants one list of cores for each tensor-parallel rank; left to itself (auto) it "
            "wants a NUMA node for each and does not start without",
            _cores,
        ),
    ]


def _threads(subject: Subject) -> Outcome:
    recipe = of_recipe(subject)
    if isinstance(recipe, Outcome):
        return recipe
    cores = limits.cores(subject.host)
    if cores is None:
        return skipped("/proc/self/status has no Cpus_allowed_list")
    found, devices = values(subject, _THREADS), recipe.cluster.devices_per_node
    sides: tuple[Role, Role] = ("train", "rollout")  # they take turns: the cores are each one's in full
    counts = {side: found.processes[side] or "1" for side in sides}
    said = f"{found}; {devices} ranks a side on {cores:g} cores"
    if not all(count.isdigit() and int(count) for count in counts.values()):
        return Outcome("fail", said, "a positive number", found.mend)
    # With fewer cores than ranks, which is host.cores, one thread for each is all that can be done.
    most = max(int(count) for count in counts.values())
    good = most == 1 or most * devices <= cores
    return judged(good, said, f"{devices} ranks on {cores:g} cores at most", found.mend, "warn")


def _cores(subject: Subject) -> Outcome:
    recipe = of_recipe(subject, "cpu")
    if isinstance(recipe, Outcome):
        return recipe
    ranks, found = recipe.rollout.tensor_parallel, values(subject, _CORES)
    value, allowed = found.processes["rollout"] or "", set(allowed_cores(subject.host))
    expected = f"{ranks} lists of cores divided by |, of those that are allowed, or nobind"
    if value == "nobind":
        return Outcome("pass", str(found), expected)
    try:
        named = [{int(core) for core in group.split(",")} for group in value.split("|")]
    except ValueError:
        # "auto", and lists with ranges, which vLLM takes as well: only how many there are can be said.
        nodes = len(list(subject.host.path("/sys/devices/system/node").glob("node[0-9]*")))
        lists = max(nodes, 1) if value == "auto" else len(value.split("|"))
        good = lists >= ranks if value == "auto" else lists == ranks
        return judged(good, f"{found}; NUMA nodes: {nodes}", expected, found.mend)
    beyond = sorted(set[int]().union(*named) - allowed)
    said = str(found) + (f"; not allowed here: {', '.join(map(str, beyond))}" if beyond else "")
    return judged(len(named) == ranks and not beyond, said, expected, found.mend)
