"""``trl_grpo.py PIPE MODEL PROBLEMS STEPS PROMPTS SAMPLES TOKENS``: TRL's GRPOTrainer, one step at a time."""

from __future__ import annotations

import json
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from datasets import Dataset
from evenness import evenness
from pyarrow import Table
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

MODEL, PROBLEMS = sys.argv[2:4]
STEPS, PROMPTS, SAMPLES, TOKENS = map(int, sys.argv[4:8])
PIPE = Connection(int(sys.argv[1]))


class WaitingCallback(TrainerCallback):
    """Reports every step and waits for a message."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        PIPE.send({})
        PIPE.recv()


def reward(completions: list[str], label: list[str], **unused: Any) -> list[float]:
    """Compute the reward of the other program."""
    return list(map(evenness, completions, label))


with tempfile.TemporaryDirectory() as folder:
    settings = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=TOKENS,
        max_steps=STEPS,
        learning_rate=1e-5,
        temperature=1.0,
        beta=0.0,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        log_completions=False,
        disable_tqdm=True,
    )
    rows = [json.loads(line) for line in Path(PROBLEMS).read_text(encoding="utf-8").splitlines()]
    GRPOTrainer(
        model=MODEL,
        reward_funcs=reward,
        args=settings,
        # An explicit fingerprint: to compute one, datasets pickles pyarrow's types, which fails for some.
        train_dataset=Dataset(Table.from_pylist(rows), fingerprint="problems"),
        # MODEL is a local folder.
        processing_class=AutoTokenizer.from_pretrained(MODEL, padding_side="left"),  # nosec B615
        callbacks=[WaitingCallback()],
    ).train()
