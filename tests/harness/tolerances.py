"""Tolerances of float comparisons, derived from the dtype and the operation.

Two correct programs differ by rounding: processors have other vector instructions, threads add in another
order, fused kernels round less often. So a test compares floats with ``torch.testing.assert_close`` or
``pytest.approx`` and a tolerance from here. Bitwise equality is asserted only where it is promised: for
copies, and for the same operations on one machine.
"""

from __future__ import annotations

import torch

# Log-probabilities of models of a few layers and a hidden size of some hundred: trainer or transformers
# against engine. In fp32: sums of about 5000 terms from token to logit, whose rounding errors add up as a
# random walk, 70 eps = 8e-6 of logits of about 10. In bf16, with 8 bits: the mean over tokens; single ones
# may be far off.
LOGPROB_FP32 = 1e-4
LOGPROB_BF16_MEAN = 0.02


def of_sum(dtype: torch.dtype, terms: int, magnitude: float = 1.0) -> dict[str, float]:
    """Return rtol and atol for a sum of ``terms`` products, and for what is computed from such sums.

    A sum of n terms has an error of at most n * eps * (sum of their absolute values); Higham, Accuracy and
    Stability of Numerical Algorithms, section 4.2. Terms of both signs cancel, and a result near zero keeps
    the error of its terms: the absolute tolerance is that of a result of size ``magnitude``.

    Args:
        dtype: in which the sum is accumulated.
        terms: length of the sum; of several sums in a row, all of them together.
        magnitude: size of the largest results.
    """
    eps = torch.finfo(dtype).eps
    return {"rtol": terms * eps, "atol": terms * eps * magnitude}


def of_rounding(dtype: torch.dtype, roundings: int = 1) -> dict[str, float]:
    """Return rtol and atol (0) for an elementwise result that was rounded ``roundings`` times."""
    return {"rtol": roundings * torch.finfo(dtype).eps, "atol": 0.0}


def relative(dtype: torch.dtype, roundings: int) -> dict[str, float]:
    """Return the arguments of ``pytest.approx`` for a number that was rounded ``roundings`` times."""
    return {"rel": roundings * torch.finfo(dtype).eps, "abs": 0.0}
