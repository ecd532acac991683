"""MindSpeed, which turns Megatron-core's CUDA calls into NPU calls, with what it needs to be told.

Read in MindSpeed at commit fc63de5c48426dd019c3b3f39e65f5bdf56e4086: importing ``mindspeed.megatron_adaptor``
parses the command line of the process and applies every feature whose level is at most
``--optimization-level``, level 0 being "the minimum patch set for megatron to adapt to NPU". It wants to be
there before Megatron, for which it makes stand-ins of Transformer Engine and apex, which no NPU has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

ARGUMENTS = (
    # No more than an NPU needs: higher levels replace attention, embedding and cross entropy with
    # functions that expect the arguments of Megatron's own training script.
    "--optimization-level=0",
)

# Features of level 0 that are left out, by name, and why.
LEFT_OUT = {
    # Its rope does not pass the context-parallel group on, without which Megatron refuses packed rows.
    "use_fused_rotary_pos_emb",
    # Sparse attention of DeepSeek models; it imports megatron.training, which the package does not have.
    "dsa",
}


def load() -> None:
    """Import the adaptor, once in a process; Megatron must not have been imported before.

    Raises:
        RuntimeError: it was.
    """
    if "mindspeed.megatron_adaptor" in sys.modules:
        return
    if "megatron.core" in sys.modules:
        raise RuntimeError("megatron.core was imported before MindSpeed's adaptor, which has to come first")
    with _command_line(*ARGUMENTS):
        from mindspeed.features_manager import MindSpeedFeaturesManager

        features = MindSpeedFeaturesManager.FEATURES_LIST
        MindSpeedFeaturesManager.set_features_list(
            [feature for feature in features if feature.feature_name not in LEFT_OUT]
        )
        import mindspeed.megatron_adaptor  # noqa: F401


@contextmanager
def _command_line(*arguments: str) -> Iterator[None]:
    """Let this process have these arguments; its own are those of a Ray worker."""
    own = sys.argv
    sys.argv = [own[0], *arguments]
    try:
        yield
    finally:
        sys.argv = own
