"""Import packages and load shared libraries in child processes, which may crash or hang."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import NOT_RUN, TIMED_OUT, UNKNOWN_PROGRAM, CommandResult, Host

_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
# For all modules together. vLLM takes 9 s on two idle cores, and much longer on busy ones.
_SECONDS = 120
_MARK = "vimectl-import "
_LINE = re.compile(rf"^{_MARK}(\[.*\])$", re.MULTILINE)
# The mark separates the child's own lines from the output of the modules. A line is the name of a module that
# was imported, whether that failed, and the file and time or the error.
#
# The first argument names, separated by commas, the modules that the stack omits although a package imports
# them. Each is replaced by a module that can be imported but not used, as in the runtime.
PROGRAM = f"""
import importlib, importlib.util, json, sys, time, types
class Missing(types.ModuleType):
    def __getattr__(self, name):
        raise (AttributeError if name.startswith("__") else ModuleNotFoundError)(name)
def say(*what):
    sys.__stdout__.write("\\n{_MARK}" + json.dumps(what) + "\\n")
    sys.__stdout__.flush()
for name in filter(None, sys.argv[1].split(",")):
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = Missing(name)
for name in sys.argv[2:]:
    begin = time.monotonic()
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        say(name, True, (type(error).__name__ + ": " + str(error))[:500])
    else:
        took = round(time.monotonic() - begin, 1)
        say(name, False, f"{{getattr(module, '__file__', None)}} in {{took}} s")
"""


def read_imports(
    host: Host, modules: Sequence[str], omitted: Sequence[str] = (), seconds: float = _SECONDS
) -> dict[str, tuple[bool, str]]:
    """Import modules one after another in a child process.

    Return whether each import failed, and the file and time or the error.
    If a module ends the process, another process imports the modules after it. ``seconds`` limits each
    process; the module that reaches the limit has failed, and the modules after it are not in the answer.
    ``omitted`` are modules that may be imported by these and need not be installed.

    Raises:
        Unavailable: the interpreter cannot be started.
    """
    found: dict[str, tuple[bool, str]] = {}
    while left := [name for name in modules if name not in found]:
        answer = host.run([host.python, "-c", PROGRAM, ",".join(omitted), *left], seconds)
        if answer.code in (NOT_RUN, UNKNOWN_PROGRAM) and not answer.stdout:
            raise Unavailable(f"{host.python} cannot be started here")
        for line in _LINE.findall(answer.stdout):
            name, failed, text = json.loads(line)
            found[name] = (failed, text)
        # The first module without an outcome has ended the process.
        crashed = next((name for name in left if name not in found), None)
        if crashed:
            found[crashed] = (True, _exit_reason(answer, seconds))
        if answer.code == TIMED_OUT:
            break
    return found


def read_library_errors(host: Host, names: tuple[str, ...]) -> dict[str, str]:
    """Load shared libraries; return the error of each that cannot be loaded.

    Raises:
        Unavailable: the interpreter that loads them cannot be started.
    """
    answers = {name: host.run([host.python, "-c", _LOAD, name], 20) for name in names}
    if any(answer.code in (NOT_RUN, UNKNOWN_PROGRAM) for answer in answers.values()):
        raise Unavailable(f"{host.python} cannot be started here")
    failed = {name: answer.stderr.strip() for name, answer in answers.items() if answer.code != 0}
    return {name: (text.splitlines() or [name])[-1] for name, text in failed.items()}


def _exit_reason(answer: CommandResult, seconds: float) -> str:
    if answer.code == TIMED_OUT:
        return f"not finished within {seconds:g} s"
    # A shell that started it reports 128 + the number of the signal.
    number = -answer.code if answer.code < 0 else answer.code - 128
    try:
        return f"the process was killed by {signal.Signals(number).name}"
    except ValueError:
        lines = [line for line in answer.stderr.strip().splitlines() if line.strip()]
        last = f": {lines[-1][:200]}" if lines else ""
        return f"the process ended with exit status {answer.code}{last}"
