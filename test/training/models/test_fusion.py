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
"""Hybrid-grained aggregation: which maps meet where, and in what order."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training.models.fusion import decimate, HybridAggregation  # noqa: E402

CLIP = (256, 512, 1024, 2048)
DINO = (768,) * 4
GRID = (16, 48)


def clip_maps(height=224, width=672, channels=CLIP, strides=(4, 8, 16, 32)):
    return [torch.randn(1, c, height // s, width // s)
            for c, s in zip(channels, strides, strict=True)]


@pytest.mark.parametrize('align', ['interp_conv1x1', 'convs2_interp'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest'])
def test_paper_sizes_give_four_maps_of_1024_channels_on_16_by_48(align, interpolation):
    aggregation = HybridAggregation(CLIP, DINO, align=align, interpolation=interpolation)
    maps = aggregation(clip_maps(), [torch.randn(1, 768, *GRID) for _ in DINO], GRID)
    assert aggregation.channels == (1024,) * 4
    assert [tuple(m.shape) for m in maps] == [(1, 1024, *GRID)] * 4


def test_dino_comes_first_untouched_and_the_first_level_of_clip_is_only_resampled():
    aggregation = HybridAggregation(CLIP, DINO, interpolation='nearest')
    clip, dino = clip_maps(), [torch.randn(1, 768, *GRID) for _ in DINO]
    maps = aggregation(clip, dino, GRID)
    for level in range(4):
        assert torch.equal(maps[level][:, :768], dino[level])
    # 56 rows onto 16: nearest takes row floor(i * 56 / 16)
    rows, columns = torch.arange(16) * 56 // 16, torch.arange(48) * 168 // 48
    assert torch.equal(maps[0][:, 768:], clip[0][:, :, rows][..., columns])


def test_bilinear_keeps_what_is_linear_in_place():
    aggregation = HybridAggregation((256,) * 4, DINO)
    u = (torch.arange(168) + 0.5) / 168  # position in the image, 0..1
    ramp = [u.expand(1, 256, 56, 168)] * 4
    maps = aggregation(ramp, [torch.zeros(1, 768, *GRID)] * 4, GRID)
    expected = (torch.arange(48) + 0.5) / 48
    assert torch.allclose(maps[0][0, 768, 5], expected, atol=1e-6)


def test_parameters_of_the_paper():
    # three 1x1 convolutions: 512, 1024 and 2048 to 256, with bias
    aggregation = HybridAggregation(CLIP, DINO)
    count = sum(p.numel() for p in aggregation.parameters())
    assert count == (512 + 1024 + 2048) * 256 + 3 * 256


@pytest.mark.parametrize(('clip', 'dino', 'channels'), [
    (CLIP, (), 256), ((), DINO, 768), ((24, 40, 112, 320), (384,) * 4, 640)])
def test_either_encoder_may_be_left_out_or_another(clip, dino, channels):
    aggregation = HybridAggregation(clip, dino)
    maps = aggregation(clip_maps(channels=clip) if clip else [],
                       [torch.randn(1, c, *GRID) for c in dino], GRID)
    assert aggregation.channels == (channels,) * 4
    assert [tuple(m.shape) for m in maps] == [(1, channels, *GRID)] * 4


def test_nothing_and_nonsense_are_refused():
    with pytest.raises(ConfigError, match='at least one encoder'):
        HybridAggregation((), ())
    with pytest.raises(ConfigError, match='interp_conv1x1'):
        HybridAggregation(CLIP, DINO, align='attention')
    with pytest.raises(ConfigError, match='bilinear'):
        HybridAggregation(CLIP, DINO, interpolation='cubic')


def test_decimation_keeps_every_fourth_of_4096_channels():
    maps = [torch.arange(1024.0).view(1, 1024, 1, 1) + 1024 * level for level in range(4)]
    assert torch.equal(decimate(maps, 1024)[0, :, 0, 0], torch.arange(0.0, 4096.0, 4.0))
