"""cann: processes find CANN and NNAL, those of the stack and no others."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult
from vimectl.doctor.checks.cann import ATB_LIBRARY, LIBRARIES, set_env, toolkit
from vimectl.doctor.facts import Facts, cann, loader

CHECKS = CheckList(device="npu", running=True)

# NNAL's set_env.sh takes it for releases of torch before 2.7, and where it finds no torch.
_OLD_ABI = "/cxx_abi_0"
_NNAL_VARIABLE, _NNAL_SCRIPT = "ATB_HOME_PATH", "/usr/local/Ascend/nnal/atb/set_env.sh"


def _directories(home: str) -> dict[str, str]:
    """Return the variables that set_env.sh of a toolkit exports, with their directories."""
    return {"ASCEND_HOME_PATH": home, "ASCEND_TOOLKIT_HOME": home, "ASCEND_OPP_PATH": f"{home}/opp"}


@CHECKS.add(
    "cann.environment",
    source="set_env.sh of CANN and of NNAL 9.0.0; PyTorch 2.6's release post (the new C++ ABI from 2.7 on); "
    "vllm-ascend#152, #262, #1144, #10525",
    reads=(*cann.TOOLKIT_READS, *loader.READS, "$ASCEND_OPP_PATH", "$ATB_HOME_PATH", "*/set_env.sh"),
    after=("cann.nnal", "cann.toolkit"),
)
def cann_environment(facts: Facts) -> CheckResult:
    """torch_npu and vllm-ascend find CANN and NNAL by what their set_env.sh export: variables that name their
    directories, and LD_LIBRARY_PATH, by which the loader finds the libraries.
    """
    home, _ = toolkit(facts)
    atb = facts.read(cann.read_nnal_home)
    variables, libraries = _directories(home), dict.fromkeys(LIBRARIES, f"{home}/lib64")
    toolkit_wrong = _wrong_variables(facts, variables) + _wrong_libraries(facts, libraries)
    nnal_wrong = _wrong_variables(facts, {_NNAL_VARIABLE: atb})
    nnal_wrong += _wrong_libraries(facts, {ATB_LIBRARY: f"{atb}/lib"})
    if atb.rstrip("/").endswith(_OLD_ABI):
        nnal_wrong.append(f"{_NNAL_VARIABLE}={atb}, which is for a torch with the old C++ ABI")
    wrong = toolkit_wrong + nnal_wrong
    unset = [name for name in (*variables, _NNAL_VARIABLE) if not facts.environment.get(name)]
    found = "; ".join([*([f"not set: {', '.join(unset)}"] if unset else []), *wrong])
    scripts = [set_env(facts, home)] if toolkit_wrong or set(unset) & set(variables) else []
    scripts += [_NNAL_SCRIPT] if nnal_wrong or _NNAL_VARIABLE in unset else []
    expected = "what set_env.sh of CANN and of NNAL export"
    if not found:
        return CheckResult(
            "pass", f"CANN of {home}, {', '.join(LIBRARIES)} and {ATB_LIBRARY} found", expected
        )
    return CheckResult("fail", found, expected, " && ".join(f"source {script}" for script in scripts))


def _wrong_variables(facts: Facts, directories: dict[str, str]) -> list[str]:
    """Return what is wrong with the variables that are set, which must name these directories."""
    wrong = []
    for name, directory in directories.items():
        value = facts.environment.get(name)
        if not value:
            continue
        if facts.missing([value]):
            wrong.append(f"{name}={value}, which does not exist")
        elif not facts.read(loader.is_same_file, value, directory):
            wrong.append(f"{name}={value}, which is not {directory}")
    return wrong


def _wrong_libraries(facts: Facts, directories: dict[str, str]) -> list[str]:
    """Return what is wrong with libraries that the loader must find in these directories."""
    wrong = []
    for name, directory in directories.items():
        expected, found = f"{directory}/{name}", facts.read(loader.find_library, name)
        if not found:
            wrong.append(f"the loader does not find {name} ({directory})")
            continue
        same = facts.read(loader.is_same_file, found, expected)
        if not same and not facts.missing([expected]):
            wrong.append(f"the loader finds {found}, not that of {directory}")
    return wrong
