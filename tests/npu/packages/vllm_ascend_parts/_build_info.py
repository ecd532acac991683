"""The module in which a build of vllm-ascend records its chip (setup.py, ``gen_build_info``)."""

__device_type__ = "A2"
