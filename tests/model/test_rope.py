from __future__ import annotations

import math

import pytest
import torch

from alm.model.config import RopeScaling
from alm.model.positions import Rotary, Rotation, rope_frequencies

THETA = 10000.0
# Each of the two angles near 60000 in a score is rounded by half of 60000 x 2^-23 in fp32. Only the fastest of the 32
# pairs has such angles, and it holds about a 32nd of the score of unit vectors.
FAR = 60000 * 2**-23 / 32


def rotary(width: int = 16, max_positions: int = 64) -> Rotary:
    return Rotary(rope_frequencies(width, THETA, RopeScaling())[0], max_positions=max_positions)


def test_two_dimensions_by_hand() -> None:
    x = torch.tensor([3.0, 4.0]).expand(1, 3, 1, 2)
    turned = rotary(width=2)(5, 3).rotate(x)
    for place, angle in enumerate((5.0, 6.0, 7.0)):  # theta^0 = 1 radian a position
        c, s = math.cos(angle), math.sin(angle)
        torch.testing.assert_close(turned[0, place, 0], torch.tensor([3 * c - 4 * s, 4 * c + 3 * s]))


def test_pairs_are_half_a_head_apart_and_slow_down() -> None:
    turned = rotary(width=4)(10, 1).rotate(torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4))
    slow = 10 / THETA**0.5
    expected = torch.tensor([math.cos(10), math.cos(slow), math.sin(10), math.sin(slow)])
    torch.testing.assert_close(turned.flatten(), expected)


def test_norms_are_kept() -> None:
    x = torch.randn(2, 64, 3, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotary()(0, 64).rotate(x).norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("distance", [0, 1, 7, 1000])
def test_scores_depend_only_on_the_distance(distance: int) -> None:
    positions = rotary(width=64, max_positions=61001)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.nn.functional.normalize(torch.randn(2, 1, 1, 1, 64, generator=generator), dim=-1)
    scores = [
        (positions(start + distance, 1).rotate(q) * positions(start, 1).rotate(k)).sum().item()
        for start in (0, 1, 10, 100, 5000, 60000)
    ]
    assert max(scores) - min(scores) < FAR
    other = (positions(distance + 3, 1).rotate(q) * positions(0, 1).rotate(k)).sum().item()
    assert abs(other - scores[0]) > 100 * FAR


def test_gradient_equals_autograd_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 16, generator=generator, requires_grad=True)
    upstream = torch.randn(2, 3, 5, 16, generator=generator).transpose(1, 2)  # as attention hands it back
    place = rotary()(4, 5)
    place.rotate(x).backward(upstream)
    plain = x.detach().clone().requires_grad_()
    a, b = plain[..., :8], plain[..., 8:]
    torch.cat((a * place.cos - b * place.sin, b * place.cos + a * place.sin), -1).backward(upstream)
    torch.testing.assert_close(x.grad, plain.grad)


def test_llama_3_slows_down_the_slow_pairs_as_its_authors_do() -> None:
    """Llama 3.1 and 3.2: heads of 128 and 64, base 500,000, original sequences of 8,192 tokens, factors 8 and 32."""
    for width, factor in ((128, 8), (64, 32)):
        scaling = RopeScaling(method="llama3", factor=factor, original_max_position_embeddings=8192)
        found, scale = rope_frequencies(width, 500000.0, scaling)
        assert scale == 1.0
        for pair, frequency in enumerate(found.tolist()):
            plain = 500000.0 ** (-2 * pair / width)
            wavelength = 2 * math.pi / plain
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * plain / factor + smooth * plain
            if wavelength < 8192 / 4:
                expected = plain
            elif wavelength > 8192:
                expected = plain / factor
            assert frequency == pytest.approx(expected, rel=1e-6)


def test_joined_and_in_place_forms_agree() -> None:
    x = torch.randn(2, 5, 3, 16, generator=torch.Generator().manual_seed(0))
    place = rotary()(4, 5)
    exact = Rotation(place.cos.double(), place.sin.double()).rotate(x.double())
    torch.testing.assert_close(place.rotate(x).double(), exact, rtol=1e-5, atol=1e-6)
    rounded = place.rotate(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), place.rotate(x.bfloat16().float()).double(), rtol=2**-8, atol=0)


def test_tables_stay_exact_when_the_model_is_cast_or_emptied() -> None:
    expected = rotary().cos
    for changed in (rotary().to(torch.bfloat16), rotary().to("meta").to_empty(device="cpu")):
        assert changed.cos.dtype == torch.float32
        assert torch.equal(changed.cos, expected)


def test_tables_are_no_part_of_a_checkpoint() -> None:
    assert rotary().state_dict() == {}
