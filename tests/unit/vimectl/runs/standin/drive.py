"""Launch the default recipe as the command line does, without the machine's preflight.

A process of its own: the launcher ends all of its descendants, and pytest has others.
"""

import sys
from pathlib import Path

from vime_runtime.spec.errors import VimeError

from vimectl.recipes.resolve import resolve
from vimectl.runs import plan as planning
from vimectl.runs.launch import launch
from vimectl.runs.progress import showing
from vimectl.util.console import err
from vimectl.util.host import Host


def main(run_dir: str, *assignments: str) -> int:
    resolved = resolve("qwen3-tiny-tp2", "smoke", list(assignments))
    plan = planning.make(resolved, Host(), Path(run_dir))
    Path(run_dir).with_suffix(".scratch").write_text(str(plan.scratch_dir))
    try:
        with showing(err.console, "test") as progress:
            ended = launch(plan, {}, progress)
    except KeyboardInterrupt:
        return 130
    except VimeError as e:
        print(e.message, e.hint, sep="\n")
        return e.exit_code
    print(ended.hint)
    return ended.exit_code


sys.exit(main(*sys.argv[1:]))
