"""Read what installers write into the metadata directory of a distribution: RECORD and direct_url.json."""

from __future__ import annotations

import base64
import hashlib
import json
import re


def canonical_name(name: str) -> str:
    """Return the normalized name of a distribution, as ``packaging.utils.canonicalize_name`` does.

    Importing that takes 5 ms, as long as the work of `vimectl patch verify`.

    >>> canonical_name("vLLM__Ascend.x")
    'vllm-ascend-x'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def record_hash(content: bytes, algorithm: str = "sha256") -> str:
    """Return the hash of a file as RECORD has it: the algorithm, and urlsafe base64 without padding."""
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def editable_source(direct_url: str | None) -> str | None:
    """Return the source directory of an editable install from the text of its direct_url.json (PEP 610).

    None: there is no such file, the distribution is not an editable install, or the text is malformed.
    """
    from urllib.parse import unquote, urlparse  # slow to import, and few installs are editable

    try:
        content = json.loads(direct_url or "")
        editable, url = content["dir_info"]["editable"], urlparse(content["url"])
    except (ValueError, KeyError, TypeError):
        return None
    return unquote(url.path) if editable is True and url.scheme == "file" else None
