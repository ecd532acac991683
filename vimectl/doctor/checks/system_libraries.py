"""host: the C and C++ libraries of the system are as new as compiled packages need."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, result
from vimectl.doctor.checks.extensions import extension_paths
from vimectl.doctor.facts import Facts, Unavailable, loader
from vimectl.doctor.facts.packages import read_glibc, read_metadata
from vimectl.doctor.facts.symbol_versions import LIBSTDCXX, Version, read_libstdcxx, read_newest
from vimectl.doctor.stack_requirements import PACKAGE_READS

CHECKS = CheckList(
    # The checkout of an editable install can be anywhere.
    reads=(
        *(*PACKAGE_READS, *loader.READS, "*.so", "*.so.*", "*/vllm*", "*/MindSpeed*", "*/mindspeed*"),
        *("getconf GNU_LIBC_VERSION", "/lib*", "/usr/lib*", "*/conda-meta"),
    ),
)

_CXX = ("GLIBCXX", "CXXABI")


@CHECKS.add(
    "host.glibc",
    source="PEP 600: manylinux_2_28 needs glibc 2.28; ld.so(8); vllm-ascend#1440, #1249",
    after=("host.system",),
)
def glibc(facts: Facts) -> CheckResult:
    """The stack's wheels are built against this glibc (their manylinux tags), and an extension that was
    compiled elsewhere against that of its machine (its GLIBC symbol versions).
    """
    found = facts.read(read_glibc)
    metadata = facts.read(read_metadata, facts.stack)
    needed: list[tuple[Version, str]] = [
        (one.glibc, name) for name, one in metadata.items() if one.glibc and name in facts.stack.packages
    ]
    newest = facts.read(read_newest, extension_paths(facts)).get("GLIBC")
    needed += [newest] if newest else []
    if not needed:
        raise Unavailable("no package of the stack is installed from a wheel with a manylinux tag")
    version, package = max(needed)
    fix = "use a distribution with a later glibc: Ubuntu 22.04, openEuler 22.03, Debian 12"
    if newest and newest[1] == package:
        fix += "; or compile the package on this machine"
    return result(
        found is not None and found >= version,
        f"glibc {found[0]}.{found[1]}" if found else "no glibc",
        f"glibc {_text(version)}, for {package}",
        fix,
    )


@CHECKS.add(
    "host.libstdcxx",
    source="libstdc++ manual: ABI policy and guidelines; ld.so(8); saturncloud/images#483, IBM/ado#725",
    after=("host.system",),
    running=True,
)
def libstdcxx(facts: Facts) -> CheckResult | str:
    """An extension that was built with a later GCC needs a later libstdc++: GLIBCXX or CXXABI not found. The
    loader takes the system's before that of conda, with which conda's packages are built.
    """
    newest = facts.read(read_newest, extension_paths(facts))
    needed = {family: newest[family] for family in _CXX if family in newest}
    if not needed:
        return "no extension needs a version of it"
    others = dict.fromkeys(path.rpartition("/lib/python")[0] for path in facts.interpreter.directories)
    prefixes = (*filter(None, others), "/opt/conda", "/root/miniconda3")
    available = facts.read(read_libstdcxx, tuple(f"{prefix}/lib" for prefix in prefixes))
    if not available:
        raise Unavailable(f"the loader finds no {LIBSTDCXX}")

    def lacking(path: str) -> list[str]:
        return [
            f"{family}_{_text(version)}, for {needing}"
            for family, (version, needing) in needed.items()
            if available[path].get(family, ()) < version
        ]

    used = next(iter(available))
    newer = next((path for path in available if not lacking(path)), "")
    directory = newer.rpartition("/")[0]
    fix = "install the package with pip: its wheel needs no later libstdc++ than its tag says"
    if newer:
        fix = f"export LD_LIBRARY_PATH={directory}:$LD_LIBRARY_PATH; or {fix}"
    versions = ", ".join(f"{family}_{_text(version)}" for family, version in available[used].items())
    return result(
        not lacking(used),
        f"{used}: {versions}" + (f"; lacks {'; '.join(lacking(used))}" if lacking(used) else ""),
        ", ".join(f"{family}_{_text(version)}" for family, (version, _) in needed.items()),
        fix,
    )


def _text(version: Version) -> str:
    return ".".join(map(str, version))
