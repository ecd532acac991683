"""Make the links of README.md absolute for the package index, where no other file of the project is.

hatchling runs this when it builds the package. hatch-fancy-pypi-readme would substitute the same pattern,
but then every lock of a stack needs it: `vimectl env create` builds a checkout with the packages of the lock.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# The target of a link or an image, which is neither a URL nor a place in the same page.
_RELATIVE = re.compile(r"(?P<image>!?)(?P<text>\[[^][]*\])\((?!\w+:|#)(?P<path>[^()\s]+)\)")


class IndexReadme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme: links lead to the files of this version."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        source, tag = metadata["urls"]["Source"], f"v{metadata['version']}"
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute_links(text, source, tag)}


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Return Markdown whose relative links lead to the files of a repository at a tag."""

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found["image"] else "blob"
        return f"{found['image']}{found['text']}({repository}/{kind}/{tag}/{found['path']})"

    return _RELATIVE.sub(absolute, text)
