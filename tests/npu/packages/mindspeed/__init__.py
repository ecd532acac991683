"""Stands in for what MindSpeed at ``--optimization-level=0`` does that the trainer meets.

MindSpeed has no release on the package index. It was read at gitcode.com/Ascend/MindSpeed, commit
fc63de5c48426dd019c3b3f39e65f5bdf56e4086; references here are to files in its package ``mindspeed``. Left out
is what its level 0 replaces in parts of Megatron-core that the trainer does not use: Transformer Engine's
layers, grouped matrix products, fused softmax and bias + SwiGLU, the distributed optimizer, checkpoints.
"""
