"""Hooks and fixtures of all tests: which files share a worker, the marker `needs`, and small checkpoints."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import needs
from npu.proof.proof import named_tests

ENDS = [1, 2]
# Sampling parameters that a model directory recommends. Runs must ignore them.
SAMPLING = {
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 5,
    "top_p": 0.8,
    "repetition_penalty": 1.5,
    "max_new_tokens": 4,
}

# These start runs, or check what runs on this machine and what is in /dev/shm. A run refuses to start while
# another one holds the devices, so they have the marker `whole_machine`, and one worker of pytest-xdist.
WHOLE_MACHINE = (
    "tests/e2e/",
    "tests/npu/test_whole_path.py",
    "tests/unit/vimectl/cli/test_doctor.py",
    "tests/unit/vimectl/cli/test_run.py",
    "tests/unit/vimectl/runs/test_",
)
ANY_WORKER = ("tests/e2e/test_prepare_real_model.py",)


def pytest_configure() -> None:
    """Let the processes that tests start receive SIGINT: a shell ignores it in its background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist is not everywhere
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file of tests to one worker, and all files in WHOLE_MACHINE to the same one.

    The groups of pytest-xdist do not work with pytest 9.2: pytest-dev/pytest-xdist#1386.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "whole machine" if _needs_whole_machine(file) else file

    return ByFile(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    if _needs_whole_machine(item.nodeid):
        item.add_marker("whole_machine")


def _needs_whole_machine(nodeid: str) -> bool:
    return nodeid.startswith(WHOLE_MACHINE) and not nodeid.startswith(ANY_WORKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            needs.require(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fail a skipped test that docs/npu-path.md names, in CI."""
    report = yield
    return _not_skipped(report, item.nodeid.partition("[")[0])


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Fail a skipped file with such a test, in CI."""
    report = yield
    return _not_skipped(report, f"{collector.nodeid}::")


def _not_skipped(report: Any, where: str) -> Any:
    if report.skipped and os.environ.get("CI") and any(test.startswith(where) for test in named_tests()):
        report.outcome = "failed"
        report.longrepr = f"tests/npu/proof/proof.toml names it, and it was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a random checkpoint of a family with transformers; keyword arguments change its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(
        family: str = "qwen3",
        dtype: torch.dtype = torch.float32,
        shard: str = "1GB",
        seed: int = 0,
        **changes: Any,
    ) -> Path:
        shape = {
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "initializer_range": 0.1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        }
        if family.startswith("qwen3"):
            shape["head_dim"] = 32  # unlike hidden_size / heads
        if family == "qwen3_moe":
            shape |= {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
            shape["norm_topk_prob"] = True
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape | changes))
        for name, parameter in model.named_parameters():
            if "norm" in name:  # all ones would hide a norm in the wrong place
                parameter.data.uniform_(0.5, 1.5)
            elif name.endswith("bias"):  # and zeros a bias
                parameter.data.uniform_(-0.5, 0.5)
        directory = tmp_path_factory.mktemp(family)
        model.to(dtype).save_pretrained(directory, max_shard_size=shard)
        return directory

    return make


@pytest.fixture(scope="session")
def make_checkpoint(make_model: Callable[..., Path]) -> Callable[..., Path]:
    """Write one as people publish it: tokenizer, chat template, generation settings; ENDS end a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    def make(seed: int, family: str = "qwen3", tied: bool = False, **changes: Any) -> Path:
        size = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 64}
        changes = size | {"max_position_embeddings": 512, "tie_word_embeddings": tied} | changes
        directory = make_model(family, seed=seed, **changes)
        vocabulary = {f"t{i}": i for i in range(64) if i != ENDS[0]} | {"<end>": ENDS[0]}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
        tokenizer.chat_template = "{% for m in messages %}t10 {{ m.content }} {% endfor %}t11"
        tokenizer.save_pretrained(directory)
        GenerationConfig(eos_token_id=ENDS, **SAMPLING).save_pretrained(directory)
        return directory

    return make
