"""Choose the builder that works on this machine."""

from __future__ import annotations

from vime_runtime.spec.errors import MissingRequirement, unknown

from vimectl.images.builder.base import Builder
from vimectl.images.builder.buildah_podman import Buildah, Podman
from vimectl.images.builder.docker import Docker
from vimectl.util.host import Host


def choose_builder(name: str, host: Host) -> Builder:
    """Return the builder called ``name``, or with ``auto`` the first that works on this machine.

    Raises:
        UsageError: there is no builder of that name.
        MissingRequirement: it does not work here, or none does; the message has the reasons.
    """
    known: dict[str, Builder] = {kind.name: kind(host) for kind in (Docker, Podman, Buildah)}
    if name != "auto" and name not in known:
        raise unknown("builder", name, ["auto", *known])
    wanted = known.values() if name == "auto" else [known[name]]
    reasons = []
    for builder in wanted:
        reason = builder.unusable()
        if reason is None:
            return builder
        reasons.append(f"{builder.name}: {reason}")
    raise MissingRequirement(
        f"{'no builder works' if name == 'auto' else f'{name} does not work'} on this machine: "
        f"{'; '.join(reasons)}",
        "install one that needs no daemon (apt-get install buildah, dnf install buildah), or start docker's",
    )
