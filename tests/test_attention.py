"""Our attention for CPUs against torch's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from conftest import relative
from hypothesis import given, settings
from hypothesis import strategies as st

from msta.backbone import attention


@settings(max_examples=25)
@given(
    b=st.integers(1, 3),
    heads=st.integers(1, 3),
    s=st.sampled_from([1, 2, 7, 40, 255, 256, 257, 600]),
    e=st.sampled_from([8, 32]),
    causal=st.booleans(),
)
def test_outputs_and_gradients_are_torchs_up_to_bf16(b, heads, s, e, causal):
    qkv = torch.randn(b, s, 3, heads, e, generator=torch.Generator().manual_seed(s))
    gradient = torch.randn(b, heads, s, e)
    found, expected = [], []
    for kernel, dtype, values in (
        (attention.attend, torch.bfloat16, found),
        (F.scaled_dot_product_attention, torch.float64, expected),
    ):
        x = qkv.to(dtype).requires_grad_(True)
        y = kernel(*x.permute(2, 0, 3, 1, 4), is_causal=causal)
        y.backward(gradient.to(dtype))
        assert y.dtype == x.grad.dtype == dtype
        values += [y.detach().double(), x.grad.double()]
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 0.03


def test_in_double_precision_both_ways_are_exact():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 300, 8, dtype=torch.float64)
    for way in (attention._InParts.apply, lambda *qkv: attention._written_out(*qkv, False)):
        ours = [t.clone().requires_grad_(True) for t in (q, k, v)]
        theirs = [t.clone().requires_grad_(True) for t in (q, k, v)]
        y, expected = way(*ours), F.scaled_dot_product_attention(*theirs)
        torch.testing.assert_close(y, expected)
        y.square().sum().backward()
        expected.square().sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)
