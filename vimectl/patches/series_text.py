"""Write ``series.toml``, as ``series`` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from vimectl.patches.blobs import blob_id
from vimectl.patches.git_diff import Changes


def dump(
    comment: str,
    package: str,
    version: str,
    module: str,
    patches: Sequence[tuple[str, Changes]],
    unneeded: Mapping[str, str] | None = None,
) -> str:
    """Return the text of a ``series.toml`` for patches, each an id with its files before and after.

    ``unneeded`` gives, for what a patch of another release is for, the reason why this release needs none.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f'package = "{package}"', f'version = "{version}"', f'module = "{module}"']
    if not patches:
        lines.append("patch = []")
    if unneeded:
        # A string of JSON is one of TOML.
        lines += ["", "[unneeded]", *(f"{slug} = {json.dumps(why)}" for slug, why in unneeded.items())]
    for patch, changes in patches:
        lines += ["", "[[patch]]", f'id = "{patch}"']
        for path, (before, after) in changes.items():
            lines += ["", "[[patch.files]]", f'path = "{path}"']
            for key, file in (("before", before), ("after", after)):
                lines += [f'{key} = "{blob_id(file.content)}"'] if file else []
            usual = before.mode if before else "100644"
            lines += [f'mode = "{after.mode}"'] if after and after.mode != usual else []
    return "\n".join(lines) + "\n"
