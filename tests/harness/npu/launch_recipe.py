"""Launch a recipe on a simulated machine as the command line does, without the preflight of this machine.

Arguments: the run directory, the recipe, KEY=VALUE... . Run it as a separate
process: the launcher ends all of its descendants, and pytest has others.
"""

import sys
from pathlib import Path

from vimectl.recipes.resolve import resolve
from vimectl.runs.launch import check_run_inputs, launch
from vimectl.runs.plan import make_plan
from vimectl.runs.progress import progress_view
from vimectl.util.console import err
from vimectl.util.host import Host


def main(run_dir: str, recipe: str, *assignments: str) -> int:
    resolved = resolve(recipe, "smoke", list(assignments))
    check_run_inputs(resolved.recipe)
    plan = make_plan(resolved, Host(), Path(run_dir))
    with progress_view(err.console, "test") as view:
        result = launch(plan, {}, view)
    print(result.summary["reason"], result.summary["hint"])
    return result.exit_code


sys.exit(main(*sys.argv[1:]))
