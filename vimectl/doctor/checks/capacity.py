"""host: the memory, disks and cores that this process may use."""

from __future__ import annotations

from vime_runtime.spec.device_memory import REGION, ParameterCount

from vimectl.doctor.check import CheckList, CheckResult, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable, limits
from vimectl.doctor.facts.cann import read_machine
from vimectl.doctor.facts.driver import CONTAINER_READS, read_container
from vimectl.doctor.facts.inputs import read_model_shape
from vimectl.doctor.facts.mounts import read_scratch_parent
from vimectl.recipes.environment import allowed_cores
from vimectl.util.units import size

CHECKS = CheckList()

_SWAPPED = 1024**3
_RESERVED_SHARE = 0.1
# Ray stops placing objects on a file system that is fuller.
_DISK_FULL = 0.95
# MIN_CPUS_PER_NPU of vllm-ascend.
_BOUND_CORES = 5
_GROUPS = ("/proc/self/status", "/proc/self/cgroup")


@CHECKS.add(
    "host.memory",
    source="proc_meminfo(5), MemAvailable; Linux: cgroup-v2.rst, cgroup-v1/memory.rst",
    reads=("/proc/meminfo", *_GROUPS, "/sys/fs/cgroup/*memory*", *CONTAINER_READS),
)
def memory(facts: Facts) -> CheckResult:
    """Trainer, engine and offloaded memory must fit ([memory] host_bytes)."""
    available, bound = facts.read(limits.read_memory)
    text = f"{size(available)} available, bounded by {bound}"
    needed = facts.recipe_for(text).memory.host_bytes
    fix = "end what uses the memory, or use a larger machine"
    if bound != "the machine":
        engine = facts.read(read_container)
        limit = "--memory" if engine != "kubernetes" else "resources.limits.memory of the pod"
        if engine:
            fix = f"start the container with a larger {limit}: {size(needed)} or more"
        else:
            fix = f"raise the limit of {bound.partition(' (')[0]}, or end what uses the memory"
        fix += "; or set memory.host_bytes to what fits"
    return result(available >= needed, text, size(needed), fix)


@CHECKS.add(
    "host.swap",
    source="proc_meminfo(5), SwapFree; swapoff(8)",
    reads=("/proc/meminfo",),
    after=("host.memory",),
)
def swap(facts: Facts) -> CheckResult:
    """An offloaded trainer that was swapped out is read back at the speed of the disk."""
    total = facts.read(limits.read_meminfo, "SwapTotal")
    used = total - facts.read(limits.read_meminfo, "SwapFree")
    return warn_unless(
        used <= _SWAPPED,
        f"{size(used)} of {size(total)} in use" if total else "no swap",
        f"at most {size(_SWAPPED)} in use",
        "end what fills the memory, then swapoff -a && swapon -a, as root",
    )


@CHECKS.add(
    "host.hugepages",
    source="Linux: admin-guide/mm/hugetlbpage.rst, HugePages_Free",
    reads=("/proc/meminfo",),
)
def huge_pages(facts: Facts) -> CheckResult:
    """Memory reserved as huge pages cannot be used for anything else."""
    reserved = facts.read(limits.read_meminfo, "HugePages_Free")
    reserved *= facts.read(limits.read_meminfo, "Hugepagesize")
    total = facts.read(limits.read_meminfo, "MemTotal")
    return warn_unless(
        reserved <= _RESERVED_SHARE * total,
        f"{size(reserved)} reserved and unused, of {size(total)}",
        f"at most {_RESERVED_SHARE:.0%}",
        "sysctl vm.nr_hugepages=0, as root",
    )


@CHECKS.add(
    "host.overcommit",
    source="proc_sys_vm(5), overcommit_memory; Linux: mm/overcommit-accounting.rst",
    reads=("/proc/sys/vm/overcommit_memory",),
)
def overcommit(facts: Facts) -> CheckResult:
    """With vm.overcommit_memory = 2, address space that is only reserved counts as used, proc(5)."""
    mode = facts.text("/proc/sys/vm/overcommit_memory")
    return warn_unless(
        mode != "2",
        f"vm.overcommit_memory = {mode}",
        "0 or 1",
        "sysctl vm.overcommit_memory=0, as root",
    )


@CHECKS.add(
    "host.shm",
    source="Ray 2.60: _private/services.py:2223 (/dev/shm too small); MemoryTable.shm_bytes of the recipe",
    reads=("df -Pk /dev/shm",),
    after=("leftovers.shm",),
)
def shared_memory(facts: Facts) -> CheckResult:
    """Weights and Ray's objects pass through /dev/shm ([memory] shm_bytes)."""
    total, free = facts.read(limits.read_disk_space, "/dev/shm")  # nosec B108 # measured
    text = f"{size(free)} free of {size(total)}"
    needed = facts.recipe_for(text).memory.shm_bytes
    fix = "remove what fills /dev/shm"
    if total < needed:
        mib = -(-(total - free + needed) // 1024**2)  # rounded up
        fix = f"mount -o remount,size={mib}m /dev/shm  (a container: start it with --shm-size={mib}m)"
    return result(free >= needed, text, f"{size(needed)} free", fix)


@CHECKS.add(
    "host.disk",
    source="MemoryTable.offload_dir of the recipe",
    reads=("df -Pk *",),
    recipe=True,
)
def disk(facts: Facts) -> CheckResult:
    """On the CPU the offloaded trainer's memory is a file ([memory] offload_dir)."""
    recipe = facts.recipe
    if recipe.cluster.device != "cpu":
        raise Unavailable(f"on {recipe.cluster.device} an offloaded trainer is in memory, not on disk")
    path = recipe.memory.offload_dir or "."
    _, free = facts.read(limits.read_disk_space, path)
    # The file has part of the recipe's memory, so this is always enough.
    return warn_unless(
        free >= recipe.memory.host_bytes,
        f"{size(free)} free at {path}",
        f"{size(recipe.memory.host_bytes)} free",
        "free space there, or set memory.offload_dir to a larger disk",
    )


@CHECKS.add(
    "host.disk-tmp",
    source="Ray 2.60: ray_config_def.h, local_fs_capacity_threshold 0.95",
    reads=("df -Pk *", "$TMPDIR", "$TEMP", "$TMP", "*"),
)
def temporary_disk(facts: Facts) -> CheckResult:
    """Ray places no more objects when its disk is 95% full."""
    path = facts.read(read_scratch_parent)
    total, free = facts.read(limits.read_disk_space, path)
    if not total:
        raise Unavailable(f"df reports the size of {path} as 0")
    return warn_unless(
        free >= (1 - _DISK_FULL) * total,
        f"{size(free)} free of {size(total)} at {path}",
        f"{1 - _DISK_FULL:.0%} free",
        f"free space in {path}, or set TMPDIR to a larger disk",
    )


@CHECKS.add(
    "host.disk-runs",
    source="vime_runtime/spec/device_memory.py: REGION; vime_runtime/checkpoint",
    reads=("df -Pk .", "*/config.json", "*"),
    recipe=True,
)
def run_disk(facts: Facts) -> CheckResult:
    """A checkpoint has 14 bytes a parameter (12 in fp32); there is one more than [checkpoint] keep."""
    recipe = facts.recipe
    parameters = ParameterCount.of(recipe, facts.read(read_model_shape, recipe)).total
    state = REGION[recipe.model.dtype] * parameters
    _, free = facts.read(limits.read_disk_space, ".")
    # While a checkpoint is written, those that are kept and that of the best step exist too.
    states = recipe.checkpoint.keep + 1 + (1 if recipe.evaluation.every else 0)
    return warn_unless(
        free >= states * state,
        f"{size(free)} free at .",
        f"{size(states * state)} free: {states} checkpoints of {size(state)}",
        "free space there, or put the run elsewhere with --run-dir",
    )


@CHECKS.add(
    "host.cores",
    source="proc_pid_status(5), Cpus_allowed_list; Linux: cgroup-v2.rst, cpu.max; vllm_ascend/"
    "cpu_binding.py:16,345,606 and worker/worker.py:782 (0.22.1rc1), vllm-ascend#6966",
    reads=(*_GROUPS, "/sys/fs/cgroup/*cpu*", "uname -m"),
)
def cores(facts: Facts) -> CheckResult:
    """A rank that shares a core delays its peers at every step. On aarch64 vllm-ascend binds the threads of
    an engine to five cores for each NPU, or not at all.
    """
    found = facts.read(limits.read_cores)
    ranks = facts.recipe_for(f"{found:g} cores").cluster.devices_per_node
    if found < ranks:
        fix = "use more cores, or expect a slow run"
        return CheckResult("warn", f"{found:g} cores", f"{ranks}, one for each rank", fix)
    if facts.stack.stack.device != "npu" or facts.read(read_machine) != "aarch64":
        return CheckResult("pass", f"{found:g} cores", f"{ranks}, one for each rank")
    allowed, needed = len(facts.read(allowed_cores)), _BOUND_CORES * ranks
    return warn_unless(
        allowed >= needed,
        f"{allowed} cores",
        f"{needed}, {_BOUND_CORES} for each NPU",
        f"allow it {needed} cores or more (a container: --cpuset-cpus), or expect a slower engine",
    )
