"""Port the patches to new releases of vllm-ascend, and report each release in an issue.

    python scripts/new_releases.py port DIR
    python scripts/new_releases.py publish DIR

`port` makes the stack of every release that has none, in DIR/<version>/, with `vimectl stack new`, and writes
the outcome to DIR/<version>.md. `publish` opens an issue for each of these files with gh, the command line of
GitHub. It updates an open issue that it wrote before, and leaves closed issues and those of users alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vimectl.patches import release_finder  # noqa: E402
from vimectl.stacks.catalog import load_stack, stack_names  # noqa: E402

# Older releases have stacks without patches, or none.
FIRST = Version("0.18.0rc1")
LABEL = "new-release"
MARK = "<!-- Written by scripts/new_releases.py, which also updates it. -->"
_GUIDE = "docs/contributing/adding-a-release.md"


def missing_releases() -> dict[str, str]:
    """Return the name of the stack to add for every release that has none."""
    names = set(stack_names())
    known = {load_stack(name).packages.get("vllm-ascend") for name in names}
    missing = {}
    for version in release_finder.versions("vllm-ascend"):
        if Version(version) >= FIRST and version not in known:
            missing[version] = stack_name(version, names)
            names.add(missing[version])
    return missing


def stack_name(version: str, taken: Collection[str]) -> str:
    """Return ascend-<minor>, or ascend-<version> when another release has that name."""
    parsed = Version(version)
    short = f"ascend-{parsed.major}.{parsed.minor}"
    return f"ascend-{version}" if short in taken else short


def port(version: str, name: str, folder: Path) -> str:
    """Make the stack of a release in ``folder`` and return the text of its issue.

    Raises SystemExit if the command failed for another reason than the release: no network, for example.
    """
    command = ["stack", "new", name, "--vllm-ascend", version]
    done = subprocess.run(
        [sys.executable, "-m", "vimectl", *command, "--out", str(folder), "--json"],
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        sys.exit(f"vimectl {' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    text = "\n".join(_report(version, f"vimectl {' '.join(command)}", json.loads(done.stdout)))
    return text.replace(f"{folder}/", "")


def _report(version: str, command: str, made: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an issue. Text of the release is in code, so that it mentions and links nothing."""
    yield f"{MARK}\nvllm-ascend {version} is on the package index and has no stack."
    yield f"\n```sh\n{command}\n```\n"
    if error := made.get("error"):
        yield f"The command failed:\n\n{_code(error['message'])}"
    else:
        yield "| package | release | ported from | outcome |\n| --- | --- | --- | --- |"
        for one in made["series"]:
            yield f"| {one['package']} | {one['version']} | {one['source']} | {one['result']} |"
        yield from _patches(made)
        if made["disagreements"]:
            yield f"\nDocuments of the release that disagree:\n\n{_code(*made['disagreements'])}"
    yield f"\nA patch that applies may still be wrong: `{_GUIDE}` says what to check before it is committed."


def _patches(made: dict[str, Any]) -> Iterator[str]:
    rows = [
        f"| {one['package']} | {patch['id']} | {file['path']} | {file['result']} | {file['note']} |"
        for one in made["series"]
        for patch in one["patches"]
        for file in patch["files"]
    ]
    if rows:
        yield "\n| package | patch | file | outcome | note |\n| --- | --- | --- | --- | --- |"
        yield from rows


def _code(*lines: str) -> str:
    return "\n".join(["```text", *(line.replace("```", "'''") for line in lines), "```"])


def publish(version: str, body: str) -> str:
    """Open the issue of a release, or update it, and return what was done."""
    every = ["--state=all", "--limit=1000", "--json=number,title,state,body"]
    issues = json.loads(_gh("issue", "list", f"--label={LABEL}", *every))
    same = [one for one in issues if one["title"].startswith(f"vllm-ascend {version}:")]
    if not same:
        _gh("label", "create", LABEL, "--force", "--description=A release of vllm-ascend without a stack")
        title = f"--title=vllm-ascend {version}: add a stack"
        return f"opened {_gh('issue', 'create', title, f'--label={LABEL}', '--body-file=-', body=body)}"
    ours = next((one for one in same if one["state"] == "OPEN" and MARK in one["body"]), None)
    if ours is None:
        return f"left #{same[0]['number']} as it is"
    if ours["body"].split() == body.split():  # a form on the web changes line ends
        return f"#{ours['number']} is current"
    _gh("issue", "edit", str(ours["number"]), "--body-file=-", body=body)
    return f"updated #{ours['number']}"


def _gh(*arguments: str, body: str = "") -> str:
    command = ["gh", *arguments]  # as the user has it on the PATH
    done = subprocess.run(command, input=body, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("port", "publish"))
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    folder: Path = options.directory
    if options.action == "port":
        folder.mkdir(parents=True, exist_ok=True)
        for version, name in missing_releases().items():
            (folder / f"{version}.md").write_text(port(version, name, folder / version), encoding="utf-8")
            print(f"{version}: ported, see {folder / version}.md")
    else:
        for path in sorted(folder.glob("*.md")):
            print(f"{path.stem}: {publish(path.stem, path.read_text(encoding='utf-8'))}")


if __name__ == "__main__":
    main()
