"""The colocated runtime: a Megatron-core trainer and a vLLM engine that take turns on the same devices.

It is started as ``python -m vime_runtime FILE`` with a run file (``spec.run_config``), and imports nothing of
the tool that writes that file.
"""
