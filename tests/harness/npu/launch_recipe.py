"""Launch a recipe on a simulated machine as the command line does, without the preflight of this machine.

Arguments: the run directory, the recipe, KEY=VALUE... . A process of its own: the launcher ends all of its
descendants, and pytest has others.
"""

import sys
from pathlib import Path

from vimectl.recipes.resolve import resolve
from vimectl.runs import plan as planning
from vimectl.runs.launch import check_inputs, launch
from vimectl.runs.progress import showing
from vimectl.util.console import err
from vimectl.util.host import Host


def main(run_dir: str, recipe: str, *assignments: str) -> int:
    resolved = resolve(recipe, "smoke", list(assignments))
    check_inputs(resolved.recipe)
    plan = planning.make(resolved, Host(), Path(run_dir))
    with showing(err.console, "test") as progress:
        ended = launch(plan, {}, progress)
    print(ended.summary["reason"], ended.hint)
    return ended.exit_code


sys.exit(main(*sys.argv[1:]))
