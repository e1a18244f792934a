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
"""PixelFormer: windows, queries, bins, backbones, and what other networks take from it."""
import math

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from onnx_parity import onnx_parity  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import losses  # noqa: E402
from hybrid_depth_training.models.clip_prior import bins, pixelformer  # noqa: E402
from hybrid_depth_training.models.clip_prior.network import (  # noqa: E402
    ClipPriorConfig,
    ClipPriorDepth,
)
from hybrid_depth_training.models.clip_prior.pyramid import make_pyramid  # noqa: E402
from hybrid_depth_training.models.clip_prior.window_attention import (  # noqa: E402
    attend,
    from_windows,
    ONNX_TRANSLATIONS,
    to_windows,
    WINDOW,
    WindowCrossAttention,
)
from hybrid_depth_training.models.posed import PosedDepth  # noqa: E402
from hybrid_depth_training.objectives.cut_depth import cut_depth  # noqa: E402

SMALL = {'backbone': 'efficientnet_lite0', 'backbone_weights': 'random', 'width': 16, 'bins': 24,
         'trca_width': 32, 'text_model': 'tiny'}
PLAIN = {**SMALL, 'trca': 'none', 'tbcp': False}
K = torch.tensor([[[100.0, 0, 48], [0, 100, 32], [0, 0, 1]]])


def network(**changes) -> ClipPriorDepth:
    torch.manual_seed(0)
    return ClipPriorDepth(ClipPriorConfig(**{**PLAIN, **changes})).eval()


def picture(height: int = 64, width: int = 96, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (1, height, width, 3), generator=generator, dtype=torch.uint8)


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize('size', [(7, 7), (8, 20), (3, 14), (1, 1)])
def test_windows_can_be_put_together_again(size):
    x = torch.randn(2, *size, 64)
    fill = torch.randn(64)
    windows = to_windows(x, fill)
    rows, columns = (math.ceil(length / WINDOW) for length in size)
    assert windows.shape == (2 * rows * columns, 2, 49, 32)
    assert torch.allclose(from_windows(windows, *size), x, atol=1e-6)
    if size == (3, 14):  # rows 3 to 6 of each window are not of the map
        rest = windows.view(2, 2, 2, 7, 7, 32)[:, :, :, 3:]
        assert torch.equal(rest, fill.view(1, 1, 2, 1, 1, 32).expand_as(rest))


def test_attention_stays_within_its_window():
    torch.manual_seed(0)
    attention = WindowCrossAttention(32)
    query, source = torch.randn(1, 14, 14, 32), torch.randn(1, 14, 14, 32)
    before = attention(query, source)
    source[0, 10, 3] += 1
    changed = (attention(query, source) - before).abs().amax(-1)[0] > 1e-6
    assert changed[7:, :7].all()
    assert changed.sum() == 49


def test_attention_is_that_of_torch_where_the_window_is_full():
    torch.manual_seed(0)
    attention = WindowCrossAttention(64)
    query, source = torch.randn(1, 7, 7, 64), torch.randn(1, 7, 7, 64)
    q, k, v = (layer(x).view(1, 49, 2, 32).transpose(1, 2) for layer, x in (
        (attention.query, query), (attention.key, source), (attention.value, source)))
    # place (y, x) looks at (y', x') with the bias of (y - y', x - x')
    bias = torch.stack([torch.stack([
        attention.position[(i // 7 - j // 7 + 6) * 13 + i % 7 - j % 7 + 6] for j in range(49)])
        for i in range(49)])
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.permute(2, 0, 1)[None])
    expected = attention.out(x.transpose(1, 2).reshape(1, 7, 7, 64))
    assert torch.allclose(attention(query, source), expected, atol=1e-5)


class Windowed(nn.Module):
    """Plain windows, then windows whose last row and column are parted, as shifted ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = WindowCrossAttention(64)
        self.register_buffer('edges', 3 * torch.randn(2, 49, 49))
        self.register_buffer('fill', torch.randn(64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.attention(image, image.flip(1))
        position = torch.zeros(2, 49, 49, device=x.device)
        return attend(x, image, x, position, self.fill, self.fill, self.fill, self.edges)


def test_exported_windows_are_those_of_torch_at_any_size(monkeypatch):
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, 'export', lambda *args, **more: export(
        *args, **more, custom_translation_table=ONNX_TRANSLATIONS))
    torch.manual_seed(0)
    worst, operators = onnx_parity(
        Windowed().eval(), [(8, 16), (4, 4), (28, 12)],
        lambda height, width: torch.randn(1, height, width, 64), (1, 2), step=4)
    assert worst < 1e-5
    assert 'Softmax' in operators


# ------------------------------------------------------------------------------------- decoder


@pytest.mark.parametrize('size', [(6, 20), (2, 3), (1, 1), (9, 13)])
def test_pooling_is_adaptive_average_pooling(size):
    x = torch.randn(2, 3, *size)
    for cells in (1, 2, 3, 6):
        assert torch.allclose(pixelformer.pooled_to(x, cells), F.adaptive_avg_pool2d(x, cells),
                              atol=1e-6)


@pytest.mark.parametrize('size', [(6, 20), (2, 3), (1, 1), (9, 13)])
def test_enlarging_is_bilinear_interpolation(size):
    for cells in (1, 2, 3, 6):
        x = torch.randn(2, 3, cells, cells)
        expected = F.interpolate(x, size=size, mode='bilinear', align_corners=False)
        assert torch.allclose(pixelformer.enlarged_to(x, *size), expected, atol=1e-5)


def test_sizes_of_the_paper():
    with torch.device('meta'):
        decoder = pixelformer.PixelFormer((192, 384, 768, 1536))
        maps = [torch.zeros(1, c, 120 // 2**i, 160 // 2**i)
                for i, c in enumerate((192, 384, 768, 1536))]
        x, query = decoder(maps)
    assert x.shape == (1, 128, 120, 160)
    assert query.shape == (1, 512, 15, 20)
    assert [level.query.out_channels for level in decoder.levels] == [1024, 512, 256, 128]
    assert [level.attention.heads for level in decoder.levels] == [32, 16, 8, 4]


def test_maps_that_have_the_width_already_are_taken_as_they_are():
    """Those of Swin Base, in the publication's code; those of the others are projected."""
    with torch.device('meta'):
        base = pixelformer.PixelFormer((128, 256, 512, 1024))
        large = pixelformer.PixelFormer((192, 384, 768, 1536))
    assert all(isinstance(level.skip, nn.Identity) for level in base.levels)
    assert [level.skip.in_channels for level in large.levels] == [1536, 768, 384, 192]


# ---------------------------------------------------------------------------------------- bins


def test_widths_are_positive_and_sum_to_1_and_centres_ascend_within_the_range():
    torch.manual_seed(0)
    predictor = bins.BinWidths(16, 256)
    widths = predictor(10 * torch.randn(5, 16, 2, 3), torch.zeros(5, 1, 4))
    assert (widths > 0).all()
    assert torch.allclose(widths.sum(1), torch.ones(5))
    centres = bins.bin_centres(widths, 0.1, 10.0)
    assert (centres.diff(dim=1) > 0).all()
    assert centres.min() > 0.1
    assert centres.max() < 10.0


def test_even_widths_have_centres_in_the_middle_of_their_bins():
    centres = bins.bin_centres(torch.full((1, 4), 0.25), 2.0, 10.0)
    assert centres.tolist() == [[3.0, 5.0, 7.0, 9.0]]


def test_depth_is_the_mean_over_the_bins():
    logits = torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1)
    mean, spread = bins.expected_depth(logits, torch.tensor([[2.0, 6.0]]))
    assert mean.item() == pytest.approx(5.0)
    assert spread.item() == pytest.approx(0.25 * 3 + 0.75 * 1, rel=1e-4)


def test_depth_is_within_the_range_and_follows_the_focal_length_where_told():
    model = network()
    with torch.no_grad():
        log_depth, log_b = model(picture(), K)
        assert log_depth.shape == log_b.shape == (1, 1, 64, 96)
        assert log_depth.exp().min() > 0.1
        assert log_depth.exp().max() < 10.0
        zoomed = K * torch.tensor([2.0, 2.0, 1.0])[:, None]
        assert torch.equal(model(picture(), zoomed)[0], log_depth)
        model = network(canonical_focal_px=100.0)
        assert torch.allclose(model(picture(), K)[0], log_depth, atol=1e-6)
        assert torch.allclose(model(picture(), zoomed)[0], log_depth + math.log(2), atol=1e-5)


# ------------------------------------------------------------------------- loss, augmentation


def test_silog_forgives_scale_in_part_and_is_blind_without_truth():
    truth = torch.rand(2, 1, 8, 8) + 1
    truth[0, 0, 0, 0], truth[1, 0, 3] = float('nan'), float('nan')
    right = torch.nan_to_num(truth, nan=123.0).log()
    assert losses.silog(right, truth) < 1e-4
    # all off by one factor: sqrt(1 - 0.85) of what it would be without forgiving
    assert losses.silog(right + 0.2, truth).item() == pytest.approx(10 * 0.2 * math.sqrt(0.15),
                                                                    rel=1e-3)
    off = right.clone().requires_grad_()
    loss = losses.silog(off, torch.full_like(truth, float('nan')))
    loss.backward()
    assert torch.isfinite(off.grad).all()


def test_cut_depth_shows_depth_in_one_rectangle():
    torch.manual_seed(1)
    image = torch.zeros(1, 40, 60, 3, dtype=torch.uint8)
    depth = torch.full((1, 1, 40, 60), 5.0)
    depth[0, 0, ::2] = float('nan')
    shown = cut_depth(image, depth, 1.0, 10.0)
    assert image.max() == 0
    assert set(shown.unique().tolist()) == {0, 127}
    rows, columns = shown[0, :, :, 0].nonzero().T
    assert (rows % 2 == 1).all()  # where there is truth
    assert len(rows) == len(rows.unique()) * (columns.max() - columns.min() + 1)
    assert torch.equal(cut_depth(image, depth, 0.0, 10.0), image)


# ----------------------------------------------------------------------------------- backbones


def test_swin_is_that_of_timm_at_any_size():
    pyramid = make_pyramid('swin_tiny', 'random', {}).eval()
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        image = picture(96, 160)
        maps = pyramid(image)
        x = pyramid.patch_embed((image.permute(0, 3, 1, 2) - pyramid.mean) / pyramid.std)
        for layer, norm, found in zip(pyramid.layers, pyramid.norms, maps, strict=True):
            x = layer(x)
            assert torch.allclose(norm(x).permute(0, 3, 1, 2), found, atol=1e-4)
    assert [tuple(x.shape[1:]) for x in maps] == [(96, 24, 40), (192, 12, 20), (384, 6, 10),
                                                  (768, 3, 5)]
    assert [block.shift_size[0] for block in pyramid.layers[0].blocks] == [0, 3]


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r'swin_large.*hybrid.*efficientnet_lite0'):
        ClipPriorConfig(backbone='vgg')
    with pytest.raises(ConfigError, match='expected 2 to 77 for token'):
        ClipPriorConfig(trca='token')
    with pytest.raises(ConfigError, match='multiples of 16'):
        ClipPriorConfig(width=24)


def test_two_heads_of_one_hybrid_encoder():
    hybrid = {'clip': 'efficientnet_lite0', 'clip_weights': 'random', 'dino': 'none',
              'text_model': 'tiny', 'text_weights': 'random', 'prompts': 8, 'align_channels': 16,
              'decoder_width': 16, 'out_channels': [8, 12, 16, 16]}
    model = network(backbone='hybrid', hybrid=hybrid)
    with torch.no_grad():
        disparities, log_depth, log_b = model.two_heads(picture(), K)
        assert torch.equal(disparities[0], model.pyramid.hybrid(picture())[0])
        alone = model(picture(), K)
    assert torch.equal(log_depth, alone[0])
    assert torch.equal(log_b, alone[1])
    with pytest.raises(ConfigError, match='no head for disparity'):
        network().two_heads(picture(), K)


# -------------------------------------------------------- the single frame of the posed network


def test_metric_bins_are_the_single_frame_of_matching():
    model = network()
    posed = PosedDepth(model).eval()
    image = picture(128, 160)
    with torch.no_grad():
        single = model.single_frame(image, K)
        assert single.log_depth.shape == single.log_b.shape == (1, 1, 64, 80)
        assert [tuple(x.shape[1:]) for x in single.shallow] == [(16, 64, 80), (24, 32, 40)]
        for one, other in zip(single.shallow, model.shallow(image), strict=True):
            assert torch.equal(one, other)
        # log depth at full size is near that at half size
        whole = model(image, K)[0]
        assert (F.avg_pool2d(whole, 2) - single.log_depth).abs().max() < 0.05
        features = posed.source_features(image[:, None])
        result = posed(image, K, features, torch.eye(4)[None, None], torch.zeros(1, 1))
    expected = F.interpolate(single.log_depth, scale_factor=2.0, mode='bilinear')
    assert torch.allclose(result.log_depth, expected, atol=1e-5)


def test_backbone_without_fine_maps_cannot_be_matched():
    with pytest.raises(ConfigError, match='no map at stride 2'):
        _ = network(backbone='swin_tiny').shallow_channels
