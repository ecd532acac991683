"""Names and words: plain technical English, and one meaning for each name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

from harness import REPOSITORY
from vimectl.cli import tree

# A pattern, and what to say instead. They are the floor, not a style guide.
AVOIDED = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(some|no|any|every)body('s)?\b|\bwho(m)?ever\b|\bothers'": "the user, another process, no process",
    r"\b(goes|go|going|went|gone) on\b": "continues, resumes",
    r"\b(is|are|was|were|be|been|has|have|had) gone\b|\bgone meanwhile\b": "has exited, is missing",
    r"\b(take|takes|taken|taking|took)( \w+)? down\b": "shut down",
    r"\bturned\b|\bturns? (a|the|it|into)\b": "transposed, converted, becomes",
    r"\b(laid|lay|lays|laying)( \w+)? out\b": "allocated, placed",
    r"\b(a|the|both|either|each|every|one|other|train|trainer's|rollout|engine's) sides?\b": "engine",
    r"\bawake\b": "resident",
    r"\bpaused\b": "offloaded",
    r"\bdeal(s|t|ing)?\b": "shard, distribute",
    r"\bjudg(e|es|ed|ing|ement|ment)\b": "classify, check, verify",
    r"\bthe like\b|\bbesides?\b|\bmore ado\b|\bmeanwhile\b": "leave it out",
    r"\b(come|comes|came|coming) to\b": "is, becomes",
    r"\blies\b|\bstands (there|still|at|in(?! for)|on|beside|between|before|behind)\b": "is",
    r"\b(told|asked|tells|asks|tell|ask)( \w+)? to (stop|end)\b": "received a stop request",
    r"\bof (its|their|our|one's) own\b": "separate, local, private",
    r"\bits say\b|\bto say\b": "decides",
    r"\"\"\"(What|Whether)\b": "a docstring that says what the function does",
    r"\b(utilis|normalis|initialis|optimis|quantis|serialis|recognis|synchronis|organis|summaris|tokenis"
    r"|specialis|minimis|maximis|behaviour|colour|neighbour|favour|honour|judgement|catalogue|licence|centre"
    r"|grey|artefact|travell|cancell|modell|labell|analyse|fulfil\b)\w*": "US spelling",
}
PATTERN = re.compile("|".join(AVOIDED), re.IGNORECASE)
# Metric names that are promised, and words of other programs that are quoted.
EXEMPT = re.compile(
    r"memory/\w+_paused_bytes|_paused_bytes"
    r"|Cannot resume allocation that is not paused"  # torch_memory_saver
    r"|\"the optimised, compressed lower triangle\""  # torch_npu's documentation
    r"|(?:``|\")cancelled(?:``|\")",  # a message of vLLM
)
WHERE = [
    "vimectl",
    "runtime",
    "patches",
    "recipes",
    "docker",
    "docs",
    "scripts",
    "benchmarks",
    "tests",
    ".github",
]
FILES = [
    "README.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
    "Makefile",
    "pyproject.toml",
    "tox.toml",
]
SUFFIXES = {".py", ".md", ".toml", ".j2", ".sh", ".css", ".js", ".yml"}

# Module names that several packages have, with one meaning.
SHARED_NAMES = {
    "catalog": "lists what is shipped: recipes, stacks",
    "command": "the work of one command of the tool: patch, patch port",
    "environment": "environment variables: of a run's processes, as facts, as checks",
    "host": "the machine that the tool works on: access to it, checks of it",
    "plan": "what an action will do, for --dry-run: runs, patches, images",
    "recipe": "recipes: their schema, their commands, their checks",
    "verify": "compare what is there with what is recorded: libraries, images",
    **dict.fromkeys(
        ("cann", "driver", "extensions", "imports", "packages"),
        "read by doctor/facts, checked by doctor/checks",
    ),
}


def sources() -> list[Path]:
    """Return the files whose words are checked."""
    found = [
        path
        for folder in WHERE
        for path in sorted((REPOSITORY / folder).rglob("*"))
        if path.suffix in SUFFIXES and not {"__pycache__", ".venv"} & set(path.parts)
    ]
    return [*found, *(path for name in FILES if (path := REPOSITORY / name).exists())]


def avoided_in(text: str) -> list[str]:
    """Return the lines of a text that have an avoided word, with the word."""
    return [
        f"{number}: [{found[0]}] {line.strip()}"
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := PATTERN.search(EXEMPT.sub("", line)))
    ]


def test_no_avoided_words_in_the_repository() -> None:
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in sources()}
    assert len(texts) > 300
    here = Path(__file__).resolve()
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path, text in texts.items()
        if path != here
        for line in avoided_in(text)
    ]
    assert found == []


def test_avoided_words_are_found() -> None:
    assert avoided_in("the trainer is gone\nmemory/train_paused_bytes\nThe region is paused.") == [
        "1: [is gone] the trainer is gone",
        "3: [paused] The region is paused.",
    ]


def help_texts(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield every command below ``command`` with its help text."""
    context = click.Context(command, info_name=" ".join(words))
    yield " ".join(words), command.get_help(context)
    for name, child in getattr(command, "commands", {}).items():
        yield from help_texts(child, (*words, name))


def test_no_avoided_words_in_the_help() -> None:
    texts = dict(help_texts(tree.command_tree(), ("vimectl",)))
    assert {"vimectl", "vimectl patch apply", "vimectl run recipe", "vimectl runs stop"} <= texts.keys()
    assert {name: found for name, text in texts.items() if (found := avoided_in(text))} == {}


def product_modules() -> list[Path]:
    return [path for package in ("vimectl", "runtime") for path in (REPOSITORY / package).rglob("*.py")]


def test_no_class_name_is_used_twice() -> None:
    defined = defaultdict(list)
    for path in product_modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(path.relative_to(REPOSITORY)))
    assert len(defined) > 100
    assert {name: places for name, places in defined.items() if len(places) > 1} == {}


def test_no_module_name_is_used_twice_but_for_one_meaning() -> None:
    places = defaultdict(list)
    for path in product_modules():
        if path.stem not in ("__init__", "__main__"):
            places[path.stem].append(str(path.relative_to(REPOSITORY)))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SHARED_NAMES} == {}
    assert SHARED_NAMES.keys() <= twice.keys()  # nothing is excused that is not needed
