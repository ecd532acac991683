"""environment: the variables that matter, as each process of the job would get them."""

from __future__ import annotations

import os
import re

from vime_runtime.spec.process_roles import ROLES

from vimectl.doctor.check import CheckList, CheckResult, Status, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.environment import read_variable, show_value
from vimectl.doctor.facts.loader import is_preloadable
from vimectl.recipes.environment import CANN_HOME, variables
from vimectl.stacks.schema import Stack

CHECKS = CheckList(running=True)

_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_LOOPBACK = ("localhost", "127.0.0.1")
_COLOCATE = "VIME_COLOCATE"
_PLUGINS, _VERSION = "VLLM_PLUGINS", "VLLM_VERSION"
# The names of vllm-ascend's platform and of the runtime among vLLM's plugins.
_NEEDED_PLUGINS = ("ascend", "vime_runtime")


@CHECKS.add(
    "environment.proxies",
    source="curl(1) and requests: http_proxy, all_proxy, no_proxy",
    reads=(*(f"${name}" for name in _PROXIES), "$no_proxy", "$NO_PROXY"),
)
def proxies(facts: Facts) -> CheckResult:
    """A proxy cannot forward traffic between the processes of one machine."""
    environment = facts.environment
    found = [name for name in _PROXIES if environment.get(name)]
    given = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(",")
    exempt = {name.strip() for name in given}
    absent = [name for name in _LOOPBACK if name not in exempt and "*" not in exempt]
    text = ", ".join(found) or "no proxy"
    if found:
        text += f"; no_proxy lacks {', '.join(absent)}" if absent else "; loopback is exempt"
    # The launcher sets no_proxy for its processes, so this affects only what is started by hand.
    return warn_unless(
        not (found and absent),
        text,
        "no proxy for loopback",
        f"export no_proxy={','.join([*filter(None, exempt), *absent])}",
    )


@CHECKS.add(
    "environment.colocate",
    source=f"patches/vllm and patches/vllm-ascend: {_COLOCATE}",
    reads=(f"${_COLOCATE}",),
)
def colocate(facts: Facts) -> CheckResult:
    """VIME_COLOCATE=1 tells a patched engine that it shares the device with a trainer: it starts on memory
    that is not free, and sizes its KV cache by its own use only.
    """
    values = facts.read(read_variable, facts.optional_recipe, _COLOCATE)
    found = "not set here" if values.here is None else f"{_COLOCATE}={values.here} here"
    if not values.processes:
        # Every engine that is started from this shell would get it.
        return warn_unless(values.here is None, found, "set by the launcher only", values.fix)
    value = values.processes["rollout"]
    return warn_unless(
        value == "1",
        f"{found}; the launcher gives the engine {_COLOCATE}={show_value(value)}",
        "1 for the engine",
        values.fix,
    )


def _fixed_reasons(stack: Stack) -> dict[str, str]:
    """Return the checks that ``environment.toml`` names. The first variable of a check says why."""
    found: dict[str, str] = {}
    for variable in variables():
        if variable.check:
            found.setdefault(variable.check, f"{variable.name}: {variable.reason}")
    return found


@CHECKS.add_each(
    "environment.{}",
    _fixed_reasons,
    source="vimectl/recipes/environment.toml, with a reason for each variable",
    reads=tuple(sorted({f"${variable.name}" for variable in variables() if variable.check})),
)
def fixed_variable(check: str, facts: Facts) -> CheckResult:
    """Check the value of a variable in each process."""
    recipe, entries = facts.optional_recipe, [one for one in variables() if one.check == check]
    name = entries[0].name
    if recipe is None:
        here = show_value(facts.environment.get(name))
        raise Unavailable(f"no recipe, so the processes are not known; here {name} is {here}")
    wanted = {role: v for role in ROLES for v in entries if v.applies(recipe, role, private_cluster=True)}
    if not wanted:
        raise Unavailable(f"no process of this recipe gets {name}")
    found = facts.read(read_variable, recipe, name)
    value = next(iter(wanted.values())).value
    expected = f"{value} in {', '.join(wanted)}"
    if not all(variable.accepted(found.processes[role]) for role, variable in wanted.items()):
        return CheckResult("fail", str(found), expected, found.fix)
    # The launcher sets it for its processes, so the value here affects only what is started by hand.
    return warn_unless(
        found.here is None or any(variable.accepted(found.here) for variable in wanted.values()),
        str(found),
        expected,
        f"export {name}={value}  (for what you start by hand: the launcher sets it itself)",
    )


@CHECKS.add(
    "environment.preload",
    source="ld.so(8): LD_PRELOAD, dynamic string tokens; torch_memory_saver: hook modes; gpustack#5660; "
    "vllm-ascend PR 14955",
    reads=("$LD_PRELOAD", "*"),
)
def preload(facts: Facts) -> CheckResult:
    """LD_PRELOAD reaches every process. The memory saver of an NPU must not be preloaded, since only the
    trainer uses it, and for a missing file the loader prints an error in each process.
    """
    values = facts.read(read_variable, facts.optional_recipe, "LD_PRELOAD")
    entries = dict.fromkeys(
        entry for text in values.given for entry in re.split(r"[ :]+", text or "") if entry
    )
    saver = [entry for entry in entries if "torch_memory_saver" in entry]
    if facts.stack.stack.device != "npu":
        saver = []
    absent = [entry for entry in entries if "/" in entry and not facts.read(is_preloadable, entry)]
    rest = ":".join(entry for entry in entries if entry not in (*saver, *absent))
    fix = f"export LD_PRELOAD={rest}" if rest and not values.in_recipe else values.fix
    if saver:
        return CheckResult("fail", str(values), "no torch_memory_saver in it", fix)
    found = str(values) + (f"; not there: {', '.join(absent)}" if absent else "")
    return warn_unless(not absent, found, "files that exist, none of the memory saver", fix)


@CHECKS.add(
    "environment.vllm-version",
    device="npu",
    source="vllm_ascend/utils.py:559 (0.22.1rc1), vllm_version_is; vllm-ascend PR 651",
    reads=(f"${_VERSION}",),
)
def vllm_version(facts: Facts) -> CheckResult:
    """VLLM_VERSION: vllm-ascend applies the code for this release instead of that of the installed vLLM."""
    values = facts.read(read_variable, facts.optional_recipe, _VERSION)
    wanted = facts.stack.packages["vllm"]
    return result({None, wanted}.issuperset(values.given), str(values), f"not set, or {wanted}", values.fix)


@CHECKS.add(
    "environment.platform-plugin",
    device="npu",
    source="vllm/plugins/__init__.py: load_plugins_by_group; vllm_ascend setup.py:541 (0.22.1rc1)",
    reads=(f"${_PLUGINS}",),
)
def platform_plugin(facts: Facts) -> CheckResult:
    """VLLM_PLUGINS: vLLM loads only the plugins that it lists. Without ascend there is no platform (Failed to
    infer device type), without vime_runtime the workers do not check their environment.
    """
    values = facts.read(read_variable, facts.optional_recipe, _PLUGINS)
    text = values.processes["rollout"] if values.processes else values.here
    listed = None if text is None else [name.strip() for name in text.split(",")]
    absent = [] if listed is None else [name for name in _NEEDED_PLUGINS if name not in listed]
    found = f"{values}; lacks {', '.join(absent)}" if absent else str(values)
    return result(not absent, found, f"not set, or with {' and '.join(_NEEDED_PLUGINS)}", values.fix)


@CHECKS.add(
    "environment.cann-path",
    device="npu",
    source="CANN 9.0: set_env.sh, PYTHONPATH",
    reads=("$PYTHONPATH", "$ASCEND_TOOLKIT_HOME", "*"),
    after=("cann.toolkit",),
)
def cann_path(facts: Facts) -> CheckResult:
    """Ray's workers do not inherit a sourced set_env.sh and find CANN's own Python packages through
    PYTHONPATH only.
    """
    values = facts.read(read_variable, facts.recipe, "PYTHONPATH")
    home = facts.environment.get("ASCEND_TOOLKIT_HOME", CANN_HOME)
    if facts.missing([home]):
        raise Unavailable(f"no CANN at {home}")
    wanted = (f"{home}/python/site-packages", f"{home}/opp/built-in/op_impl/ai_core/tbe")
    paths = [set((values.processes[role] or "").split(os.pathsep)) for role in ROLES]
    if not all(set(wanted) <= own for own in paths):
        return CheckResult("fail", str(values), f"{', '.join(wanted)} on it", values.fix)
    absent = facts.missing(wanted)
    return result(
        not absent,
        f"absent: {', '.join(absent)}" if absent else str(values),
        f"CANN's packages below {home}",
        "source CANN's set_env.sh, which sets ASCEND_TOOLKIT_HOME, or install the toolkit again",
    )


@CHECKS.add(
    "environment.python",
    source="Python's command line and environment: PYTHONHOME, PYTHONOPTIMIZE",
    reads=("$PYTHONHOME", "$PYTHONOPTIMIZE"),
)
def python_variables(facts: Facts) -> CheckResult:
    """PYTHONHOME makes every interpreter use the library of another one; PYTHONOPTIMIZE removes the
    assertions with which vLLM and Megatron refuse unsupported settings.
    """
    wrong = {
        name: value for name in ("PYTHONHOME", "PYTHONOPTIMIZE") if (value := facts.environment.get(name))
    }
    found = ", ".join(f"{name}={value}" for name, value in wrong.items())
    bad: Status = "fail" if "PYTHONHOME" in wrong else "warn"
    return result(not wrong, found or "neither is set", "neither", f"unset {' '.join(wrong)}", bad)
