"""The colocated runtime: Megatron-core trainer and vLLM engine on the same devices, taking turns.

Started as ``python -m vime_runtime FILE`` with one JSON file that says everything about the run.
It knows nothing of the tool that wrote the file.
"""
