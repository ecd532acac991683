"""The proof agrees with the tree and with the notice of the product, and the page with the proof."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from npu.proof import picture, recorded_account
from npu.proof.proof import PAGE, PICTURE, ROOT, named_tests, read_proof, render_page
from vimectl.runs.npu_notice import UNTESTED_STEPS


def test_named_tests_exist() -> None:
    functions: dict[str, set[str]] = {}
    for test in named_tests():
        file, _, name = test.partition("::")
        if file not in functions:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions[file], test


def test_removed_texts_occur_once() -> None:
    for rule in read_proof().rule:
        for removal in rule.removal:
            text = (ROOT / Path(removal.file)).read_text(encoding="utf-8")
            for piece in removal.texts:
                assert text.count(piece) == 1, f"{rule.id}: {piece!r} in {removal.file}"


def test_every_step_is_tested_or_in_the_notice() -> None:
    steps = {step.id: step for step in read_proof().step}
    assert UNTESTED_STEPS.keys() <= steps.keys()
    assert all(step.cpu or step.torch_npu or step.untested for step in steps.values())


def test_the_product_does_not_name_the_stand_ins() -> None:
    names = re.compile(rb"CANN_STAND_IN|npu_operators|vllm_ascend_parts")
    found = [
        str(path.relative_to(ROOT))
        for folder in ("vimectl", "runtime", "patches", "recipes", "docker")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and names.search(path.read_bytes())
    ]
    assert found == []


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run python tests/npu/proof/proof.py page"
    assert PICTURE.read_text(encoding="utf-8") == picture.draw(recorded_account.read())
