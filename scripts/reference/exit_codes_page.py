"""The page of the exit codes: of every command, and of each kind of error."""

from __future__ import annotations

from collections import defaultdict

from vime_runtime.spec import errors

from reference.command_list import commands
from reference.markdown import code, prose, table

HEADER = """\
# Exit codes

| code | meaning |
| --- | --- |
| `0` | done, or all is well |
| `1` | a check failed, a verification found a difference, or an unexpected error |
| `{usage}` | wrong usage or wrong input: an unknown name, a malformed file |
| `{lacking}` | the machine lacks something that the command needs: a builder, a device, disk space |
| `{interrupted}` | interrupted by Ctrl-C or a stop request |

With `--json` an error is a document too: `{{"schema": ..., "ok": false, "error": {{"kind", "message",
"hint"}}}}`, see [JSON documents](json.md).
"""


def render() -> str:
    """Return the text of the page."""
    header = HEADER.format(
        usage=errors.UsageError.exit_code,
        lacking=errors.MissingRequirement.exit_code,
        interrupted=errors.INTERRUPTED,
    )
    found = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.VimeError)
    ]
    kinds = [[code(one.kind), code(str(one.exit_code)), _first_paragraph(one)] for one in found]
    parts = [
        header,
        "## Kinds of errors {: #kinds }\n",
        "`error.kind` of a document, and of `events.jsonl` of a run:\n",
        table(["kind", "exit code", "meaning"], kinds),
        "\n## Commands {: #commands }\n",
        "A code that is not listed means the same as in the table above.\n",
        table(["command", "code", "meaning"], _special()),
    ]
    return "\n".join(parts) + "\n"


def _first_paragraph(error: type) -> str:
    return prose((error.__doc__ or "").split("\n\n")[0])


def _special() -> list[list[str]]:
    """Return the meanings of codes that are not the most frequent meaning of the code."""
    meanings: dict[int, list[str]] = defaultdict(list)
    for command in commands():
        for number, text in command.exit_codes.items():
            meanings[number].append(text)
    usual = {number: max(texts, key=texts.count) for number, texts in meanings.items()}
    return [
        [
            f"[{code(command.name)}](commands.md#{command.name.replace(' ', '-')})",
            code(str(number)),
            prose(text),
        ]
        for command in commands()
        for number, text in command.exit_codes.items()
        if text != usual[number]
    ]
