"""environment: variables of the caller that reach every process of a job."""

from __future__ import annotations

import os
from pathlib import Path

from vimectl.doctor.finding import Check, Outcome, Subject, judged
from vimectl.recipe.environment import environment
from vimectl.stack import Stack

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
    ]


def _proxies(subject: Subject) -> Outcome:
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
