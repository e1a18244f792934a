# Copyright 2026 The hybrid_depth_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Text-guided bin-centre prediction: the gate, the widths, the range that follows the words."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402

from hybrid_depth_training.models.clip_prior.bins import bin_centres  # noqa: E402
from hybrid_depth_training.models.clip_prior.tbcp import (  # noqa: E402
    TextGuidedBinWidths,
    TextRange,
)

CHANNELS, DIM, BINS = 16, 20, 64


def predictor(gate: float | None = None) -> TextGuidedBinWidths:
    """Return one whose gate is held at sigmoid(``gate``) in every channel."""
    torch.manual_seed(0)
    module = TextGuidedBinWidths(CHANNELS, DIM, BINS)
    if gate is not None:
        nn.init.zeros_(module.gate.weight)
        nn.init.constant_(module.gate.bias, gate)
    return module


def sentences(count: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(count, 1, DIM, generator=generator), dim=-1)


def queries(count: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, CHANNELS, 2, 3, generator=torch.Generator().manual_seed(seed)).relu()


def test_open_gate_sees_the_image_alone():
    module = predictor(100.0)
    widths = module(queries(), sentences(seed=0))
    assert torch.equal(widths, module(queries(), sentences(seed=5)))
    assert (widths - module(queries(seed=7), sentences())).abs().max() > 1e-5


def test_closed_gate_hears_the_sentence_alone():
    module = predictor(-100.0)
    widths = module(queries(), sentences())
    assert torch.equal(widths, module(queries(seed=7), sentences()))
    assert (widths - module(queries(), sentences(seed=5))).abs().max() > 1e-5


def test_fused_is_between_image_and_text():
    module = predictor()
    image, text = torch.randn(50, CHANNELS), torch.randn(50, CHANNELS)
    fused = module.fused(image, text)
    assert (fused >= torch.minimum(image, text) - 1e-6).all()
    assert (fused <= torch.maximum(image, text) + 1e-6).all()


def test_starts_mostly_with_the_image_and_with_text_of_a_size_to_be_heard():
    module = predictor()
    zero = torch.zeros(1, CHANNELS)
    gate = module.fused(zero + 1, zero)  # 1 of the image, 0 of the text
    assert gate.mean().item() == pytest.approx(0.88, abs=0.05)
    text = sentences(200)
    entries = module.text(text[:, 0] * DIM**0.5)
    assert 0.3 < entries.std() < 1.5


def test_widths_are_positive_and_sum_to_1_for_any_sentence():
    widths = predictor()(10 * queries(4), sentences(4))
    assert (widths > 0).all()
    assert torch.allclose(widths.sum(1), torch.ones(4))
    centres = bin_centres(widths, 1e-3, 10.0)
    assert (centres.diff(dim=1) > 0).all()


def test_order_of_the_batch_does_not_matter():
    module, order = predictor(), [1, 2, 0]
    widths = module(queries(3), sentences(3))
    assert torch.allclose(module(queries(3)[order], sentences(3)[order]), widths[order])


def test_range_starts_at_1_and_stays_between_half_and_twice():
    module = TextRange(DIM)
    assert module(sentences(3)).tolist() == [[1.0], [1.0], [1.0]]
    nn.init.normal_(module.weight.weight, std=100.0)
    factors = module(sentences(100))
    assert factors.min() >= 0.5 - 1e-6
    assert factors.max() <= 2 + 1e-6
    assert factors.min() < 0.6
    assert factors.max() > 1.9
    centres = bin_centres(torch.full((100, 4), 0.25), 0.1, 10 * factors)
    assert torch.allclose(centres[:, 3], 0.1 + (10 * factors[:, 0] - 0.1) * 0.875)
