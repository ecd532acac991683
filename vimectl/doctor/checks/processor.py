"""host: the processor has the instructions of which compiled packages make use."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, result
from vimectl.doctor.facts import Facts
from vimectl.doctor.facts.cann import read_machine
from vimectl.doctor.facts.cpu_features import CPUINFO, read_instructions

CHECKS = CheckList(running=True)

_NEWER = "use a machine with a later processor; in a virtual machine, pass the processor of its host through"
# The mimalloc of this release of torch for aarch64 is compiled for ARMv8.1, pytorch#174344.
_MIMALLOC = "2.10."


@CHECKS.add(
    "host.processor",
    source="vLLM 0.32.0: platforms/cpu.py:634-667; vLLM PR 35466, #13662, #18660; pytorch#174344; "
    "vllm-ascend#13936",
    reads=(CPUINFO, "uname -m"),
    after=("host.system",),
)
def processor(facts: Facts) -> CheckResult | str:
    """An instruction that the processor does not have ends a process with SIGILL. vLLM's CPU backend needs
    AVX2 on x86-64 and uses AVX-512 if it is there; torch 2.10 for aarch64 needs the atomics of ARMv8.1.
    """
    model, features = facts.read(read_instructions)
    machine, torch = facts.read(read_machine), facts.stack.packages.get("torch", "")
    if machine == "x86_64" and facts.stack.stack.device == "cpu":
        return result("avx2" in features, _found(model, "avx2", features), "avx2 (Haswell or later)", _NEWER)
    if machine == "aarch64" and torch.startswith(_MIMALLOC):
        return result(
            "atomics" in features,
            _found(model, "atomics", features),
            f"atomics (ARMv8.1, such as Kunpeng 920), for torch {torch}",
            "use a machine with an ARMv8.1 processor, such as Kunpeng 920, or build this torch on this one",
        )
    return f"{model}; no package of the stack needs more than every {machine}"


def _found(model: str, feature: str, features: frozenset[str]) -> str:
    return f"{model} {'has' if feature in features else 'lacks'} {feature}"
