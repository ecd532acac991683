"""Launch a recipe without the preflight: ``launch_recipe.py RUN_DIR RECIPE [--detach] [KEY=VALUE]...``.

It is a separate process, because the launcher kills all of its descendants and pytest has others. The path of
the scratch directory is written to a file next to the run directory.
"""

import sys
from pathlib import Path

from vime_runtime.spec.errors import VimeError

from vimectl.recipes.resolve import resolve
from vimectl.runs.launch import check_run_inputs, launch, launch_detached
from vimectl.runs.plan import make_plan
from vimectl.runs.progress import progress_view
from vimectl.util.console import err
from vimectl.util.host import Host


def main(run_dir: str, recipe: str, *assignments: str) -> int:
    resolved = resolve(recipe, "smoke", [one for one in assignments if one != "--detach"])
    check_run_inputs(resolved.recipe)
    plan = make_plan(resolved, Host(), Path(run_dir))
    Path(run_dir).with_suffix(".scratch").write_text(str(plan.scratch_dir))
    try:
        with progress_view(err.console, "test") as view:
            if "--detach" in assignments:
                launch_detached(plan, {}, view)
                return 0
            result = launch(plan, {}, view)
    except KeyboardInterrupt:
        return 130
    except VimeError as e:
        print(e.message, e.hint, sep="\n")
        return e.exit_code
    print(result.summary["reason"], result.summary["hint"], result.summary["excerpt"], sep="\n")
    return result.exit_code


sys.exit(main(*sys.argv[1:]))
