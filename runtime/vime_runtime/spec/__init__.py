"""The contract between the tool and the runtime.

Everything that both must agree on is defined here once: recipe schema, run file, errors, model families,
device layout, process roles, names of metrics and events, paths in a run directory, checkpoint manifest.
It imports pydantic and the standard library only, so that the tool can use it without torch.
"""
