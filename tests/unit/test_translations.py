"""The pages in Chinese: each has an English page with the same sections, code and commands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness import REPOSITORY
from harness.documented_commands import commands_in

DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.zh.md"
PAGES = [README, *sorted((DOCS / "zh").rglob("*.md"))]
# Names of programs and options stay as they are, so prose in Chinese has Latin letters too.
CHINESE_SHARE = 0.4

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")
_COMMENT = re.compile(r"(^|\s+)#\s.*")
# The site's markup for a box: a title, and indented text that is no code.
_BOX = re.compile(r"^(?:!!!|\?\?\?).*\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)


def english_page(page: Path) -> Path:
    """Return the page that a page in Chinese translates."""
    return REPOSITORY / "README.md" if page == README else DOCS / page.relative_to(DOCS / "zh")


def tokens(text: str) -> Iterator[Token]:
    """Yield the Markdown tokens of a page, those inside paragraphs too."""
    plain = _BOX.sub(lambda box: textwrap.dedent(box[1]), text)
    for token in MarkdownIt("commonmark").enable("table").parse(plain):
        yield token
        yield from token.children or ()


def headings(text: str) -> list[str]:
    """Return the levels of the headings of a page."""
    return [token.tag for token in tokens(text) if token.type == "heading_open"]


def code(text: str) -> list[str]:
    """Return the lines of all code blocks of a page. Comments are left out: they are translated."""
    return [
        line
        for token in tokens(text)
        if token.type in ("fence", "code_block")
        for line in (f"```{token.info}", *(_COMMENT.sub("", line) for line in token.content.splitlines()))
    ]


def chinese_share(text: str) -> float:
    """Return the share of Chinese characters among the letters of the prose."""
    prose = "".join(token.content for token in tokens(text) if token.type == "text")
    chinese, latin = len(_CHINESE.findall(prose)), len(_LATIN.findall(prose))
    return chinese / (chinese + latin)


def by_place(page: Path) -> dict[bool, list[str]]:
    """Return the commands of a page: True for those in code blocks, False for those in the text."""
    found = commands_in(page)
    in_text = {command.text for command in found if not command.in_block}
    return {True: [command.text for command in found if command.in_block], False: sorted(in_text)}


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_page_has_an_english_page(page: Path) -> None:
    assert english_page(page).is_file()


def test_sections_are_those_of_the_english_page(page: Path) -> None:
    assert headings(page.read_text(encoding="utf-8")) == headings(english_page(page).read_text("utf-8"))


def test_code_is_that_of_the_english_page(page: Path) -> None:
    assert code(page.read_text(encoding="utf-8")) == code(english_page(page).read_text(encoding="utf-8"))


def test_commands_are_those_of_the_english_page(page: Path) -> None:
    assert by_place(page) == by_place(english_page(page))


def test_page_is_in_chinese(page: Path) -> None:
    assert chinese_share(page.read_text(encoding="utf-8")) > CHINESE_SHARE
    assert chinese_share(english_page(page).read_text(encoding="utf-8")) < CHINESE_SHARE / 10


def test_every_changed_line_of_code_is_noticed(page: Path) -> None:
    """Change one line of the code after the other, and compare the page with itself."""
    text = page.read_text(encoding="utf-8")
    lines = [line for line in code(text) if line.strip() and not line.startswith("```")]
    assert all(code(text.replace(line, f"{line}-changed")) != code(text) for line in lines)


def test_an_added_section_and_a_changed_command_in_the_text_are_noticed(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    assert headings(f"{text}\n## New\n") != headings(text)
    changed = tmp_path / "README.md"
    changed.write_text(text.replace("`vimectl recipe schema`", "`vimectl recipe schemas`"), encoding="utf-8")
    assert by_place(changed) != by_place(README)


def test_every_tutorial_is_translated() -> None:
    tutorials = {path.name for path in (DOCS / "tutorial").glob("*.md")}
    assert {path.name for path in (DOCS / "zh" / "tutorial").glob("*.md")} == tutorials


def test_the_readmes_link_to_each_other_at_the_top() -> None:
    assert "(README.zh.md)" in "".join((REPOSITORY / "README.md").read_text("utf-8").splitlines()[:5])
    assert "(README.md)" in "".join(README.read_text(encoding="utf-8").splitlines()[:5])
