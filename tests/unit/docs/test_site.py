"""The site builds strictly, has every command, key and check, and loads nothing from another host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml
from vime_runtime.spec import errors
from vime_runtime.spec.events import EVENTS
from vime_runtime.spec.metrics import METRICS

from harness import REPOSITORY
from harness.doctor.shown_checks import shown_checks
from vimectl.doctor.compare_nodes import NODE_CHECKS
from vimectl.recipes.recipe_schema import all_keys
from vimectl.stacks.catalog import KEYS, stack_names
from vimectl.stacks.schema import Stack
from vimectl.util.toml import read_toml

sys.path.append(str(REPOSITORY / "scripts"))
from reference.command_list import Command, commands

pytestmark = pytest.mark.slow  # two builds, 8 s of processor time each

# What a browser loads with a page: the attribute with the address.
LOADED = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}
# Relations of a <link> that load nothing.
NOT_LOADED = {"canonical", "alternate", "next", "prev"}


class _Page(HTMLParser):
    """The anchors and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        loads = tag in LOADED and not (tag == "link" and found.get("rel", "") in NOT_LOADED)
        if loads and (address := found.get(LOADED[tag])):
            self.loaded.append(address)
        self.loaded += re.findall(r"url\(['\"]?([^)'\"]+)", found.get("style", ""))


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "runtime")))
    environment = {**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the repository."""
    folder = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, _Page]:
    """Every page by its address below the site's."""
    files = sorted(site.rglob("*.html"))
    texts = {file.relative_to(site).as_posix().removesuffix("index.html"): file.read_text() for file in files}
    return {address: _Page(text) for address, text in texts.items()}


def shown(command: Command) -> str:
    return command.name.replace(" ", "-")


def test_addresses_are_those_of_the_package() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    urls = read_toml(REPOSITORY / "pyproject.toml")["project"]["urls"]
    assert (config["site_url"], config["repo_url"]) == (urls["Documentation"], urls["Source"])


def test_every_page_of_the_navigation_is_built(pages: dict[str, _Page]) -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", text.partition("\nnav:")[2]))
    wanted = {re.sub(r"(index)?\.md$", "", name) for name in named}
    assert {re.sub(r"/$", "", name) for name in wanted} <= {address.rstrip("/") for address in pages}
    assert len(wanted) > 50


@pytest.mark.parametrize(
    ("page", "anchors"),
    [
        ("commands", {shown(one) for one in commands()}),
        ("json", {shown(one) for one in commands() if not one.is_group}),
        ("recipe", {one.key for one in all_keys()}),
        ("stack", {one.key for one in all_keys(Stack)}),
        ("project-file", KEYS),
        ("checks", {*shown_checks(), *(check.id for check in NODE_CHECKS)}),
        ("metrics", {*METRICS, *(f"event-{kind}" for kind in EVENTS)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_has_an_anchor(pages: dict[str, _Page], page: str, anchors: set[str]) -> None:
    assert len(anchors) > 10
    assert anchors - pages[f"reference/{page}/"].anchors == set()


def test_every_stack_and_kind_of_error_is_shown(site: Path) -> None:
    releases = (site / "reference/matrix/index.html").read_text()
    assert [name for name in stack_names() if f"<td>{name}</td>" not in releases] == []
    codes = (site / "reference/exit-codes/index.html").read_text()
    kinds = [one.kind for one in errors.VimeError.__subclasses__()]
    assert [kind for kind in kinds if f"<code>{kind}</code>" not in codes] == []


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[str, _Page]) -> None:
    loaded = {address for page in pages.values() for address in page.loaded}
    assert len(loaded) > 5
    for sheet in site.rglob("*.css"):
        loaded |= set(re.findall(r"url\(['\"]?([^)'\"]+)", sheet.read_text()))
        loaded |= set(re.findall(r"@import\s+(?:url\()?['\"]?([^)'\";]+)", sheet.read_text()))
    assert {one for one in loaded if urlsplit(one).netloc or one.startswith("http")} == set()
    # This component of the theme asks the host of the repository for its numbers.
    assert not any('data-md-component="source"' in file.read_text() for file in site.rglob("*.html"))


def test_every_link_and_file_within_the_site_exists(site: Path, pages: dict[str, _Page]) -> None:
    broken = []
    for address, page in pages.items():
        if address == "404.html":  # shown at any address, so its links are absolute
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(urljoin(f"/{address}", link))
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "mailto", "data"), f"{address}: {link}"
                continue
            path = unquote(parts.path).lstrip("/")
            target = pages.get(path)
            known = target is not None or (site / path).is_file()
            if not known or (parts.fragment and target and unquote(parts.fragment) not in target.anchors):
                broken.append(f"{address}: {link}")
    assert broken == []


def test_chinese_pages_state_their_language(site: Path) -> None:
    assert '<html lang="zh"' in (site / "zh/index.html").read_text()
    assert '<html lang="en"' in (site / "index.html").read_text()


def test_wrong_links_are_refused(tmp_path: Path) -> None:
    for path in REPOSITORY.iterdir():
        if path.name not in ("docs", "mkdocs.yml"):
            (tmp_path / path.name).symlink_to(path)
    shutil.copy(REPOSITORY / "mkdocs.yml", tmp_path)
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    (tmp_path / "docs/orphan.md").write_text("# A page that is not in the navigation\n")
    wrong = {
        "../../tests/no_such_test.py": "tests/no_such_test.py, which does not exist",
        "../../../elsewhere.md": "../elsewhere.md, which does not exist",
        "no-such-page.md": "no-such-page.md",
        "../reference/recipe.md#rollout.no_such_key": "rollout.no_such_key",
        "http://example.org/": "'http://example.org/' is not a link with https to a host",
    }
    with (tmp_path / "docs/how-to/doctor.md").open("a") as page:
        page.writelines(f"\n[a link]({link})\n" for link in wrong)
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode != 0
    assert [text for text in (*wrong.values(), "orphan.md") if text not in done.stderr] == []
    assert len(re.findall("^WARNING", done.stderr, re.MULTILINE)) == len(wrong) + 1
