"""Change a module of the runtime when it is imported, as FAILED_START in the environment says."""

import importlib.util
import os
import sys


class Patch:
    """An import hook for one module; ``change`` is called with it once it is imported."""

    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


def fail_in_engine_worker(module):
    def finish_bucket_update(self):
        raise ValueError("the weights are odd")

    module.WorkerExtension.finish_bucket_update = finish_bucket_update


def fail_in_new_engine_worker(module):
    def odd(*args, **kwargs):
        raise LookupError("no such tensor")

    module.CPUWorker.load_model = odd


def lose_gradient(module):
    step = module.Trainer.train_step

    def train_step(self, batch):
        row = step(self, batch)
        if not row["train/grad_norm"] < 0:
            raise FloatingPointError("the gradient is NaN")
        return row

    module.Trainer.train_step = train_step


PATCHES = {
    "engine worker": ("vime_runtime.rollout.worker", fail_in_engine_worker),
    "new engine worker": ("vllm.v1.worker.cpu_worker", fail_in_new_engine_worker),
    "gradient": ("vime_runtime.trainer.trainer", lose_gradient),
}

if (fault := os.environ.get("FAILED_START")) in PATCHES:
    sys.meta_path.insert(0, Patch(*PATCHES[fault]))
