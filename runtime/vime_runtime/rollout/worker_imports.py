"""Import what the workers of an engine need, once for all of them, in the process of ``worker_server``."""

from __future__ import annotations

import gc

from vime_runtime import eager_only

gc.disable()  # the workers enable it, see ``gc_pause``
eager_only.inherit()
with eager_only.without_inductor():
    import vllm.v1.executor.multiproc_executor
    import vllm.v1.worker.cpu_worker  # noqa: F401
    from vllm.utils.system_utils import set_process_title
# The title of a process is written over its first environment, so this must come before changes of that.
set_process_title("WorkerServer")
gc.freeze()  # the collector would write to pages that the workers share
