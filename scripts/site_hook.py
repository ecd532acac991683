"""The hook of mkdocs: generate the pages of the reference, and resolve links that leave docs/.

A page links relatively, as in the checkout. A link to a file of the repository that is not a page becomes a
link to the repository on its host. A file that does not exist is a warning, and an error with --strict.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree  # nosec B405 # for its elements: no XML is parsed

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from reference.pages import GENERATED  # noqa: E402

# Files of the repository that are pages of the site too.
COPIED = {
    "CONTRIBUTING.md": "contributing/index.md",
    "SECURITY.md": "contributing/security.md",
    "CHANGELOG.md": "reference/changelog.md",
}
# Markdown's own treeprocessors: links exist after "inline" (20), and mkdocs resolves them last (0).
_BEFORE_MKDOCS = 10

log = logging.getLogger("mkdocs.hooks.vimectl")


class _RepositoryLinks(Treeprocessor):
    """Resolve the links of one page to other files of the repository."""

    def __init__(self, config: MkDocsConfig) -> None:
        super().__init__()
        self.repository = Path(config.config_file_path).parent
        self.url = config.repo_url.rstrip("/")
        self.page = ""  # the page that is converted: its path in docs/

    def run(self, root: ElementTree.Element) -> None:
        for element in root.iter():
            attribute = {"a": "href", "img": "src"}.get(element.tag, "")
            if link := element.get(attribute):
                element.set(attribute, self.resolve(link))

    def resolve(self, link: str) -> str:
        """Return a link to a page of the site, relative to this page, or to the repository on its host."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or not parts.path:
            if parts.scheme == "http" or (parts.scheme == "https" and "." not in parts.netloc):
                log.warning("%s: %r is not a link with https to a host", self.page, link)
            return link
        path = posixpath.normpath(posixpath.join(posixpath.dirname(_source(self.page)), parts.path))
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        page = COPIED.get(path) or (path[5:] if path.startswith("docs/") else None)
        if page:
            return posixpath.relpath(page, posixpath.dirname(self.page) or ".") + anchor
        file = self.repository / path
        if path.startswith("../") or not file.exists():
            log.warning("%s links to %s, which does not exist", self.page, path)
        return f"{self.url}/{'tree' if file.is_dir() else 'blob'}/main/{path}{anchor}"


class _LinkExtension(Extension):
    def __init__(self, links: _RepositoryLinks) -> None:
        super().__init__()
        self.links = links

    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(self.links, "repository-links", _BEFORE_MKDOCS)


def _source(page: str) -> str:
    """Return the path in the repository of the file that a page is made from."""
    return next((path for path, copy in COPIED.items() if copy == page), f"docs/{page}")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the extension that resolves links."""
    extensions: list[Any] = config.markdown_extensions
    extensions.append(_LinkExtension(_RepositoryLinks(config)))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated from the code, and copies of files of the repository."""
    repository = Path(config.config_file_path).parent
    for name, render in GENERATED.items():
        files.append(File.generated(config, f"reference/{name}.md", content=render()))
    for path, page in COPIED.items():
        files.append(File.generated(config, page, abs_src_path=str(repository / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tell the extension which page is converted next."""
    for extension in config.markdown_extensions:
        if isinstance(extension, _LinkExtension):
            extension.links.page = page.file.src_uri
    return markdown


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: object) -> dict[str, Any]:
    """Let the choice of the language lead to the same page in the other language, if there is one."""
    english = re.sub("^zh/", "", page.file.src_uri)
    for alternate, name in zip(config.extra["alternate"], (english, f"zh/{english}"), strict=True):
        found = config.extra["pages"].get(name)
        alternate["link"] = found or ("./" if name == english else "./zh/")
    return context


def on_env(env: Any, config: MkDocsConfig, files: Files) -> Any:
    """Note the address of every page."""
    config.extra["pages"] = {file.src_uri: file.url for file in files.documentation_pages()}
    return env


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """State the language of Chinese pages."""
    if page.file.src_uri.startswith("zh/"):
        output = output.replace('<html lang="en"', '<html lang="zh"', 1)
    return _without_requests(output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Change the page that is shown for a wrong address as the others."""
    return _without_requests(output_content)


def _without_requests(text: str) -> str:
    """Keep the theme from asking the host of the repository for its numbers."""
    return text.replace(' data-md-component="source"', "")
