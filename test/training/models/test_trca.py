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
"""Text-guided reverse cross-attention: its three readings, and what each can tell."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from onnx_parity import onnx_parity  # noqa: E402
from torch import nn  # noqa: E402

from hybrid_depth_training.models.clip_prior.trca import (  # noqa: E402
    MODES,
    TextGuidedReverseCrossAttention,
)

CHANNELS, DIM = 12, 20


def trca(mode: str, gamma: float = 0.7) -> TextGuidedReverseCrossAttention:
    torch.manual_seed(0)
    module = TextGuidedReverseCrossAttention(CHANNELS, DIM, 32, mode=mode)
    if mode != 'literal':
        nn.init.constant_(module.gamma, gamma)
    return module


def sentences(count: int = 3, rows: int = 1, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(count, rows, DIM, generator=generator), dim=-1)


def maps(count: int = 3) -> torch.Tensor:
    return torch.randn(count, CHANNELS, 4, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize('mode', ['pooled', 'token'])
def test_starts_as_if_there_was_no_text(mode):
    x = maps()
    fresh = TextGuidedReverseCrossAttention(CHANNELS, DIM, 32, mode=mode)
    assert torch.equal(fresh(x, sentences(rows=3)), x)
    fresh(x, sentences(rows=3)).square().sum().backward()
    assert fresh.gamma.grad.abs().min() > 0  # and can leave from there


def test_literal_reading_says_the_same_to_every_pixel():
    x = maps()
    change = trca('literal')(x, sentences()) - x
    assert change.abs().amax() > 0.01
    assert (change - change[:, :, :1, :1]).abs().max() < 1e-5


@pytest.mark.parametrize('mode', ['pooled', 'token'])
def test_other_readings_tell_pixels_apart(mode):
    x = maps()
    change = trca(mode)(x, sentences(rows=3)) - x
    # words attend nearly alike before anything is learned
    assert change.flatten(2).std(dim=2).mean() > {'pooled': 0.01, 'token': 1e-4}[mode]


@pytest.mark.parametrize('mode', MODES)
def test_the_sentence_matters_and_its_place_in_the_batch_does_not(mode):
    module, text = trca(mode), sentences(rows=3)
    x = maps(1).expand(3, -1, -1, -1)
    result = module(x, text)
    assert (result[0] - result[1]).abs().max() > 1e-3
    order = [2, 0, 1]
    assert torch.allclose(module(x, text[order]), result[order], atol=1e-6)


def test_order_and_padding_of_words_do_not_matter_where_they_are_a_set():
    module, text, x = trca('token'), sentences(2, rows=5), maps(2)
    result = module(x, text)
    assert torch.allclose(module(x, text[:, [0, 4, 2, 1, 3]]), result, atol=1e-6)
    padded = torch.cat([text, torch.zeros(2, 3, DIM)], dim=1)
    assert torch.allclose(module(x, padded), result, atol=1e-6)
    assert (module(x, text[:, :3]) - result).abs().max() > 1e-4


def test_pooled_reading_hears_the_sentence_alone():
    module, text, x = trca('pooled'), sentences(2, rows=5), maps(2)
    assert torch.allclose(module(x, text), module(x, text[:, :1]), atol=1e-6)


def test_local_gate_is_1_on_the_mean():
    """Equal attention everywhere is a plain linear map of the pixels."""
    module, x = trca('pooled', gamma=1.0), maps(1)
    with torch.no_grad():
        for layer in (module.key, module.whole[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    pixels = module.image(x).flatten(2).transpose(1, 2)
    expected = x + module.local(module.value(pixels)).transpose(1, 2).unflatten(2, (4, 5))
    assert torch.allclose(module(x, sentences(1)), expected, atol=1e-5)


class Told(nn.Module):
    """TRCA with a sentence of three rows, padded to five."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.trca = trca(mode)
        padded = torch.cat([sentences(1, rows=3), torch.zeros(1, 2, DIM)], dim=1)
        self.register_buffer('text', padded)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        # of the image as well, so that nothing of the text can be folded into constants
        return self.trca(image, self.text * (2 + torch.tanh(image[:, :1, :1, 0])))


@pytest.mark.parametrize('mode', MODES)
def test_exported_graph_says_the_same_at_any_size(mode):
    generator = torch.Generator().manual_seed(4)
    worst, operators = onnx_parity(
        Told(mode).eval(), [(4, 6), (8, 2)],
        lambda height, width: torch.randn(1, CHANNELS, height, width, generator=generator),
        (2, 3), step=2)
    assert worst < 1e-5
    assert 'Softmax' in operators


def test_text_of_the_width_itself_needs_no_adapter():
    module = TextGuidedReverseCrossAttention(CHANNELS, 32, 32)
    assert isinstance(module.adapt[0], nn.Identity)
