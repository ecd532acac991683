"""environment: the variables that matter, as each process of the job would get them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vime_runtime.spec.process_roles import ROLES

from vimectl.doctor import ports, threads, variables, visible
from vimectl.doctor.finding import Check, Outcome, Status, Subject, judged, skipped
from vimectl.doctor.variables import NOT_RUNNING, of_recipe, values
from vimectl.recipes.environment import CANN_HOME, environment
from vimectl.stacks.schema import Stack

_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_LOOPBACK = ("localhost", "127.0.0.1")
_COLOCATE = "VIME_COLOCATE"


def checks(stack: Stack) -> list[Check]:
    return [
        Check(
            "environment.proxies",
            "a proxy cannot forward traffic between the processes of one machine",
            _proxies,
        ),
        Check("environment.pythonpath", "what is on PYTHONPATH hides the packages of the stack", _pythonpath),
        Check(
            "environment.colocate",
            f"{_COLOCATE}=1 tells a patched engine that another process takes turns with it: it then starts "
            "on memory that is not free, and sizes its KV cache by its own use alone",
            _colocate,
        ),
        *variables.checks(),
        Check(
            "environment.preload",
            "LD_PRELOAD goes to every process; an NPU's memory saver must not be preloaded, for it is the "
            "trainer's alone, and a file that is not there makes the loader complain in each of them",
            _preload,
        ),
        Check(
            "environment.cann-path",
            "Ray's workers do not inherit a sourced set_env.sh and find CANN's own Python packages by "
            "PYTHONPATH alone",
            _cann_path,
        ),
        Check(
            "environment.python",
            "PYTHONHOME makes every interpreter take another's library, PYTHONOPTIMIZE takes out the "
            "assertions by which vLLM and Megatron refuse what they cannot do",
            _python,
        ),
        *visible.checks(),
        *ports.checks(),
        *threads.checks(),
    ]


def _proxies(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    environment = subject.host.environment
    proxies = [name for name in _PROXIES if environment.get(name)]
    given = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(",")
    exempt = {name.strip() for name in given}
    lacking = [name for name in _LOOPBACK if name not in exempt and "*" not in exempt]
    found = ", ".join(proxies) or "no proxy"
    if proxies:
        found += f"; no_proxy lacks {', '.join(lacking)}" if lacking else "; loopback is exempt"
    # The launcher sets no_proxy for what it starts, so this hurts only what is started by hand.
    return judged(
        not (proxies and lacking),
        found,
        "no proxy for loopback",
        f"export no_proxy={','.join([*filter(None, exempt), *lacking])}",
        "warn",
    )


def _pythonpath(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    entries = [path for path in subject.host.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    modules = {name.replace("-", "_") for name in subject.stack.packages} | {"megatron", "vime_runtime"}
    hiding = [
        f"{entry}/{module}"
        for entry in entries
        for module in sorted(modules)
        if subject.host.path(f"{entry}/{module}").is_dir()
    ]
    return judged(
        not hiding,
        ", ".join(hiding)
        or (f"{len(entries)} entries, none with a package of the stack" if entries else "not set"),
        "no package of the stack on it",
        "unset PYTHONPATH, or remove these entries",
    )


def _colocate(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    here = subject.host.environment.get(_COLOCATE)
    found = "not set here" if here is None else f"{_COLOCATE}={here} here"
    if subject.recipe is None:
        # It would reach every engine that is started from here, by hand or by a recipe that is not colocated.
        return judged(here is None, found, "left to the launcher", f"unset {_COLOCATE}", "warn")
    colocated = subject.recipe.cluster.colocate
    setting = environment(subject.recipe, "rollout", subject.host, Path("/tmp")).get(_COLOCATE)
    effective = setting.value if setting else here
    return judged(
        (effective == "1") == colocated,
        f"{found}; the launcher gives the engine " + (f"{_COLOCATE}={setting.value}" if setting else "none"),
        "1, the recipe is colocated" if colocated else "not 1, the recipe is not colocated",
        f"take {_COLOCATE} out of the recipe's [env]" if setting else f"unset {_COLOCATE}",
        "warn",
    )


def _preload(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    if subject.recipe is None:
        texts, found = [subject.host.environment.get("LD_PRELOAD")], ""
        found = f"here: {texts[0] or 'not set'}"
        mend = "unset LD_PRELOAD"
    else:
        its = values(subject, "LD_PRELOAD")
        texts, found, mend = list(its.processes.values()), str(its), its.mend
    entries = dict.fromkeys(entry for text in texts for entry in re.split(r"[ :]+", text or "") if entry)
    if subject.stack.stack.device == "npu" and any("torch_memory_saver" in entry for entry in entries):
        return Outcome("fail", found, "no torch_memory_saver in it", mend)
    absent = [entry for entry in entries if "/" in entry and not subject.host.path(entry).exists()]
    found += f"; not there: {', '.join(absent)}" if absent else ""
    return judged(not absent, found, "files that exist, none of the memory saver", mend, "warn")


def _cann_path(subject: Subject) -> Outcome:
    recipe = of_recipe(subject, "npu")
    if isinstance(recipe, Outcome):
        return recipe
    host, found = subject.host, values(subject, "PYTHONPATH")
    home = host.environment.get("ASCEND_TOOLKIT_HOME", CANN_HOME)
    if not host.path(home).is_dir():
        return skipped(f"no CANN at {home}")
    wanted = [f"{home}/python/site-packages", f"{home}/opp/built-in/op_impl/ai_core/tbe"]
    lacking = {
        path
        for role in ROLES
        for path in wanted
        if path not in (found.processes[role] or "").split(os.pathsep)
    }
    if lacking:
        return Outcome("fail", str(found), f"{', '.join(wanted)} on it", found.mend)
    absent = [path for path in wanted if not host.path(path).is_dir()]
    return judged(
        not absent,
        f"absent: {', '.join(absent)}" if absent else str(found),
        f"CANN's packages below {home}",
        "source CANN's set_env.sh, which sets ASCEND_TOOLKIT_HOME, or install the toolkit again",
    )


def _python(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    given = {name: subject.host.environment.get(name) for name in ("PYTHONHOME", "PYTHONOPTIMIZE")}
    wrong = [name for name, value in given.items() if value]
    found = ", ".join(f"{name}={given[name]}" for name in wrong)
    bad: Status = "fail" if "PYTHONHOME" in wrong else "warn"
    return judged(not wrong, found or "neither is set", "neither", f"unset {' '.join(wrong)}", bad)
