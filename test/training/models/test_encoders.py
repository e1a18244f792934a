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
"""Every row of ENCODERS keeps the promises of the table."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from onnx_parity import onnx_parity  # noqa: E402

from hybrid_depth_training.models.encoders import ENCODERS  # noqa: E402
from hybrid_depth_training.models.encoders.clip import ClipRN50, ClipViTB16  # noqa: E402
from hybrid_depth_training.models.encoders.dino import DinoV2S  # noqa: E402
from hybrid_depth_training.models.encoders.vit import explicit_attention, tap_blocks  # noqa: E402
from hybrid_depth_training.weights import HubFile  # noqa: E402

TABLE = {  # channels, strides; from the papers
    'efficientnet_lite0': ((16, 24, 40, 112, 320), (2, 4, 8, 16, 32)),
    'resnet18': ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    'clip_rn50': ((256, 512, 1024, 2048), (4, 8, 16, 32)),
    'clip_vit_b16': ((768,) * 4, (16,) * 4),
    'dinov2_vits14': ((384,) * 4, (14,) * 4),
    'dinov2_vitb14': ((768,) * 4, (14,) * 4),
}
MILLIONS = {'resnet18': 11.18, 'clip_rn50': 23.53, 'clip_vit_b16': 85.80, 'dinov2_vits14': 22.06,
            'dinov2_vitb14': 86.58}
CONVOLUTIONAL = ('efficientnet_lite0', 'resnet18', 'clip_rn50')
DINOV2 = 'weights/dinov2_vits14_timm_fp16.safetensors'


def make(name, weights='random'):
    """Make a row; transformers with four blocks instead of twelve."""
    if name in CONVOLUTIONAL:
        return ENCODERS[name](weights)
    return ENCODERS[name](weights, depth=4)


@pytest.fixture(scope='module', params=sorted(ENCODERS))
def row(request):
    torch.manual_seed(0)
    return request.param, make(request.param).eval()


def test_table_is_the_one_that_is_tested():
    assert set(TABLE) == set(ENCODERS)


def test_row_gives_the_maps_it_promises(row):
    name, encoder = row
    assert (encoder.channels, encoder.strides) == TABLE[name]
    assert encoder.provenance == 'random'
    assert len(encoder.mean) == len(encoder.std) == 3
    height, width = 3 * encoder.strides[-1], 2 * encoder.strides[-1]
    with torch.no_grad():
        maps = encoder(torch.randn(2, 3, height, width))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, height // s, width // s) for c, s in zip(*TABLE[name], strict=True)]


@pytest.mark.parametrize('name', CONVOLUTIONAL)
def test_parts_of_a_convolutional_row_make_up_the_whole(name):
    encoder = make(name).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = encoder(image)
        before = encoder(image, last=2)
        after = encoder(before[-1], first=2)
    for one, other in zip(whole, [*before, *after], strict=True):
        assert torch.equal(one, other)


def test_row_exports_to_onnx(row):
    _, encoder = row
    explicit_attention(encoder)
    step = encoder.strides[-1]
    worst, operators = onnx_parity(
        encoder, [(3 * step, 2 * step)], lambda h, w: torch.randn(1, 3, h, w), (2, 3))
    assert worst < 1e-5
    assert 'Attention' not in operators


@pytest.mark.slow
@pytest.mark.parametrize('name', ['clip_vit_b16', 'dinov2_vits14'])
def test_transformers_export_for_any_size(name):
    torch.manual_seed(0)
    encoder = make(name).eval()
    explicit_attention(encoder)
    step = encoder.strides[-1]
    worst, _ = onnx_parity(encoder, [(3 * step, 4 * step), (2 * step, 7 * step)],
                           lambda h, w: torch.randn(1, 3, h, w), (2, 3), step)
    assert worst < 1e-5


@pytest.mark.parametrize('name', ['clip_vit_b16', 'dinov2_vits14'])
def test_explicit_attention_is_the_same_function(name):
    encoder = make(name).eval()
    image = torch.randn(1, 3, encoder.strides[0] * 3, encoder.strides[0] * 4)
    with torch.no_grad():
        fused = encoder(image)
        explicit_attention(encoder)
        plain = encoder(image)
    for one, other in zip(fused, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(('name', 'millions'), sorted(MILLIONS.items()))
def test_size_of_the_published_architectures(name, millions):
    with torch.device('meta'):
        encoder = ENCODERS[name]('random')
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'clip_rn50'])
def test_statistics_of_the_pretraining_are_kept(name):
    encoder = make(name).train()
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    encoder(torch.rand(2, 3, 64, 64))
    assert len(norms) > 10
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True))


def test_imagenet_weights_of_the_package():
    assert ENCODERS['efficientnet_lite0']('imagenet').provenance.startswith('imagenet (sha256 ')


def test_taps_of_twelve_blocks_are_those_of_the_paper():
    assert tap_blocks(12) == (2, 5, 8, 11)


def test_clip_rn50_takes_its_half_of_a_whole_clip(tmp_path):
    from open_clip.modified_resnet import ModifiedResNet
    torch.manual_seed(1)
    tower = ModifiedResNet(layers=[3, 4, 6, 3], output_dim=1024, heads=32).eval()
    for module in tower.modules():  # zero at the start, which would hide what a block does
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    state = {f'visual.{key}': value for key, value in tower.state_dict().items()}
    torch.save({**state, 'logit_scale': torch.ones(()), 'ln_final.weight': torch.ones(4)},
               tmp_path / 'clip.pt')
    encoder = ClipRN50(str(tmp_path / 'clip.pt')).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = tower.forward_intermediates(image, indices=[1, 2, 3, 4],
                                               intermediates_only=True)['image_intermediates']
        for one, other in zip(encoder(image), expected, strict=True):
            assert torch.equal(one, other)


def test_clip_vit_is_the_tower_of_open_clip(tmp_path):
    from open_clip.transformer import QuickGELU, VisionTransformer
    tower = VisionTransformer(image_size=224, patch_size=16, width=768, layers=4, heads=12,
                              mlp_ratio=4.0, output_dim=512, act_layer=QuickGELU).eval()
    torch.save({f'visual.{key}': value for key, value in tower.state_dict().items()},
               tmp_path / 'clip.pt')
    encoder = ClipViTB16(str(tmp_path / 'clip.pt'), depth=4).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = tower.forward_intermediates(image, indices=[0, 1, 2, 3],
                                               intermediates_only=True)['image_intermediates']
        for one, other in zip(encoder(image), expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_absent_weights_name_their_repository(monkeypatch):
    def fetch(self):
        raise FileNotFoundError(f'{self.repository}/{self.name}')

    monkeypatch.setattr(HubFile, '__call__', fetch)
    for name, weights, file in (
            ('resnet18', 'imagenet', 'timm/resnet18.tv_in1k/model.safetensors'),
            ('clip_rn50', 'openai', 'timm/resnet50_clip.openai/open_clip_model.safetensors')):
        with pytest.raises(FileNotFoundError, match=file):
            make(name, weights)
    for name in ('dinov2_vits14', 'dinov2_vitb14', 'clip_vit_b16'):
        with pytest.raises(FileNotFoundError, match='timm/vit_'):
            make(name, 'pretrained')


def test_dinov2_of_the_shared_file_tells_patches_apart(shared_data):
    path = shared_data / DINOV2
    if not path.is_file():
        pytest.skip('the DINOv2-initialised weights are not on this machine')
    encoder = DinoV2S(str(path)).eval()  # strictly, or it raises
    assert encoder.provenance.startswith('file dinov2_vits14_timm_fp16.safetensors')
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 56, 112)
    image[..., 56:] = torch.randn(3, 56, 56)  # left half plain, right half textured
    with torch.no_grad():
        features = [torch.nn.functional.normalize(m[0].flatten(1), dim=0) for m in encoder(image)]
    columns = torch.arange(32) % 8
    for one in features:
        cosine = one.T @ one
        plain, textured = columns < 4, columns >= 4
        assert cosine[plain][:, plain].mean() > cosine[plain][:, textured].mean() + 0.1
    assert (features[0] - features[3]).abs().max() > 0.1


def test_positions_are_resampled_and_matter():
    torch.manual_seed(0)
    encoder = DinoV2S('random', depth=4).eval()
    image = torch.zeros(1, 3, 42, 28)
    with torch.no_grad():
        maps = encoder(image)  # all patches alike: what differs is where they are
    assert (maps[0][0, :, 0, 0] - maps[0][0, :, 2, 1]).abs().max() > 1e-4
