from __future__ import annotations

from harness.doctor.described_machine import Machine
from vimectl.doctor.facts import limits

GIB = 1024**3


def test_unified_control_group_bounds_memory_and_cores(cpu: Machine) -> None:
    cpu.write("/proc/self/cgroup", "0::/job/task\n")
    cpu.write("/sys/fs/cgroup/job/memory.max", f"{4 * GIB}\n")
    cpu.write("/sys/fs/cgroup/job/memory.current", f"{3 * GIB}\n")
    cpu.write("/sys/fs/cgroup/job/memory.stat", f"anon 1\ninactive_file {GIB}\n")
    cpu.write("/sys/fs/cgroup/job/task/memory.max", "max\n")
    cpu.write("/sys/fs/cgroup/job/task/cpu.max", "150000 100000\n")
    available, bound = limits.read_memory(cpu.host)
    assert available == 2 * GIB
    assert "/sys/fs/cgroup/job" in bound
    assert limits.read_cores(cpu.host) == 1.5


def test_container_sees_its_own_group_as_the_root(cpu: Machine) -> None:
    cpu.write("/proc/self/cgroup", "0::/\n")
    cpu.write("/sys/fs/cgroup/memory.max", f"{GIB}\n")
    cpu.write("/sys/fs/cgroup/memory.current", "0\n")
    cpu.write("/sys/fs/cgroup/cpu.max", "max 100000\n")
    assert limits.read_memory(cpu.host)[0] == GIB
    assert limits.read_cores(cpu.host) == 2


def test_legacy_control_group_bounds_memory_and_cores(cpu: Machine) -> None:
    cpu.write("/proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    cpu.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
    cpu.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", f"{GIB // 2}\n")
    cpu.write("/sys/fs/cgroup/memory/memory.stat", f"total_inactive_file {GIB // 4}\n")
    cpu.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")
    cpu.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert limits.read_memory(cpu.host)[0] == 3 * GIB // 4
    assert limits.read_cores(cpu.host) == 0.5


def test_legacy_group_without_quota_bounds_nothing(cpu: Machine) -> None:
    cpu.write("/proc/self/cgroup", "2:cpu,cpuacct:/\n")
    cpu.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    cpu.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    cpu.write("/proc/self/status", "Cpus_allowed_list:\t0-3,8,10-11\n")
    assert limits.read_cores(cpu.host) == 7
    assert limits.read_memory(cpu.host)[1] == "the machine"
