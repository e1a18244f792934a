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
"""The network of Hybrid-depth as a whole, small."""
from functools import partial

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from onnx_parity import onnx_parity  # noqa: E402

from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training.models.encoders import ENCODERS  # noqa: E402
from hybrid_depth_training.models.encoders.dino import DinoV2S  # noqa: E402
from hybrid_depth_training.models.encoders.vit import explicit_attention  # noqa: E402
from hybrid_depth_training.models.hybrid import HybridConfig, HybridDepth, patch_grid  # noqa: E402
from hybrid_depth_training.models.text import normalise_text  # noqa: E402
from hybrid_depth_training.objectives import read_options  # noqa: E402

TINY = {'clip': 'efficientnet_lite0', 'clip_weights': 'random', 'dino': 'dinov2_vits14',
        'dino_weights': 'random', 'text_model': 'tiny', 'text_weights': 'random', 'prompts': 16,
        'align_channels': 32, 'decoder_width': 16, 'out_channels': (8, 12, 16, 16)}


@pytest.fixture(scope='module', autouse=True)
def small_dino():
    """Make the tests fast: four transformer blocks instead of twelve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, 'dinov2_vits14', partial(DinoV2S, depth=4))
        yield


def make(**changes) -> HybridDepth:
    torch.manual_seed(0)
    return HybridDepth(read_options(HybridConfig, {**TINY, **changes}))


def picture(height=64, width=96, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8,
                         generator=generator)


@pytest.fixture(scope='module')
def network():
    return make().eval()


@pytest.mark.parametrize(('size', 'grid'), [
    ((224, 672), (16, 48)), ((192, 640), (14, 46)), ((96, 320), (7, 23)), ((4, 32), (1, 2))])
def test_patch_grid_is_the_nearest(size, grid):
    assert patch_grid(*size) == grid


def test_forward_and_backward_reach_every_parameter():
    network = make()
    (disparity,) = network(picture(batch=2))
    assert disparity.shape == (2, 1, 64, 96)
    assert 0 < disparity.min() < disparity.max() < 1
    disparity.sum().backward()
    without = [name for name, p in network.named_parameters()
               if p.grad is None or not p.grad.abs().sum() > 0]
    # ReLU6 and dropped paths may leave a channel alone, never a whole part
    assert not [name for name in without if not name.startswith('clip.')], without


def test_sizes_that_are_no_multiples_of_14_work(network):
    with torch.no_grad():
        for size in ((64, 96), (96, 160)):
            assert network(picture(*size))[0].shape == (1, 1, *size)


@pytest.mark.parametrize('changes', [
    {'language': False}, {'alignment': 'decimated'}, {'clip': 'none'}, {'dino': 'none'},
    {'align': 'convs2_interp'}, {'interpolation': 'nearest', 'normalise_input': False},
    {'disparity': 'relu'}, {'scales': 4}, {'prompts': 3}])
def test_every_switch_builds_and_runs(changes):
    network = make(**changes).eval()
    with torch.no_grad():
        found = network(picture())
    assert [tuple(d.shape) for d in found] == [
        (1, 1, 64 >> s, 96 >> s) for s in range(changes.get('scales', 1))]
    assert all(torch.isfinite(d).all() for d in found)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'clip': 'resnet50'}, 'clip_rn50'), ({'clip': 'none', 'dino': 'none'}, 'at least one'),
    ({'prompts': 0}, 'prompts'), ({'alignment': 'all'}, 'per_level'),
    ({'promts': 3}, 'unknown options'), ({'min_depth_m': 200.0}, 'min_depth_m')])
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_settings_of_the_paper_are_the_defaults():
    config = HybridConfig()
    assert (config.clip, config.dino, config.text_model) == (
        'clip_rn50', 'dinov2_vitb14', 'clip_rn50')
    assert (config.prompts, config.align_channels, config.decoder_width) == (256, 256, 256)


def test_each_encoder_sees_the_colours_of_its_pretraining(network):
    image = picture()
    seen = {}
    for part in ('clip', 'dino'):
        encoder = getattr(network, part)
        seen[part] = network._normalised(image, part)
        by_hand = (image[0, 5, 7].float() / 255 - torch.tensor(encoder.mean)) \
            / torch.tensor(encoder.std)
        assert torch.allclose(seen[part][0, :, 5, 7], by_hand, atol=1e-5)
    raw = make(normalise_input=False)
    assert torch.allclose(raw._normalised(image, 'dino')[0, :, 5, 7],
                          image[0, 5, 7].float() / 255)


def test_text_changes_what_is_decoded(network):
    image = picture()
    with torch.no_grad():
        before = network(image)[0]
        features = network.encode(image)
        words = network.prompts.words.clone()
        network.prompts.words.mul_(-50)
        after = network.decode(features, (64, 96))[0]
        network.prompts.words.copy_(words)
        again = network.decode(features, (64, 96))[0]
    assert (before - after).abs().max() > 1e-6
    assert torch.equal(before, again)  # known text is not taken for that of other weights


def test_text_is_computed_once_while_its_weights_stay(network, monkeypatch):
    with torch.no_grad():
        first = network.text_features()
        monkeypatch.setattr(type(network.prompts), 'forward', None)
        assert network.text_features() is first


def test_baked_network_is_the_same_without_a_text_tower():
    network = make().eval()
    image = picture()
    with torch.no_grad():
        expected = network(image)[0]
        text = normalise_text(network.prompts(network.text))
        before = sum(p.numel() for p in network.parameters())
        network.bake_text()
        assert torch.equal(network(image)[0], expected)
    assert torch.allclose(network.baked_text, text, atol=1e-7)
    assert sum(p.numel() for p in network.parameters()) < before - 1_000_000
    loaded = HybridDepth(network.config, is_text_baked=True).eval()
    loaded.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(loaded(image)[0], expected)


def test_two_halves_make_up_the_whole(network):
    image = picture()
    with torch.no_grad():
        maps = network.shallow(image)
        assert maps[-1].shape == (1, network.matching_channels, 16, 24)
        assert torch.equal(network.deep(image, maps)[0], network(image)[0])


def test_without_a_map_at_stride_4_there_is_nothing_to_match():
    with pytest.raises(ConfigError, match='stride 4'):
        _ = make(clip='none').matching_channels


def trained(policy):
    """Return the beginnings of the names of what is trained, of a network that is not tiny."""
    with torch.device('meta'):
        network = HybridDepth(HybridConfig(dino='dinov2_vitb14'))
        names = network.freeze(policy)
    assert names == [n for n, p in network.named_parameters() if p.requires_grad]
    return network, set(names)


def test_fine_stage_trains_what_the_paper_trains():
    network, names = trained('fine')
    parts = {name.split('.')[0] for name in names}
    assert parts == {'clip', 'dino', 'aggregation', 'text', 'prompts', 'decoder'}
    every = {name for name, _ in network.named_parameters()}
    for part in ('clip.', 'aggregation.', 'prompts.', 'decoder.'):
        assert {n for n in every if n.startswith(part)} <= names
    dino = {n for n in names if n.startswith('dino.')}
    assert dino == {n for n in every if n.startswith('dino.vit.blocks.11.')}
    assert len(dino) > 10
    assert {n for n in names if n.startswith('text.')} == {
        'text.token_embedding.weight', 'text.positional_embedding', 'text.ln_final.weight',
        'text.ln_final.bias', 'text.text_projection'}


def test_coarse_stage_trains_clip_and_the_aggregation_alone():
    network, names = trained('coarse')
    assert names == {n for n, _ in network.named_parameters()
                     if n.startswith(('clip.', 'aggregation.'))}


def test_manydepth_freezes_all_of_dino_and_decoder_all_encoders():
    _, fine = trained('fine')
    _, manydepth = trained('manydepth')
    assert fine - manydepth == {n for n in fine if n.startswith('dino.')}
    _, decoder = trained('decoder')
    assert {n.split('.')[0] for n in decoder} == {'aggregation', 'decoder', 'prompts'}
    with pytest.raises(ConfigError, match='fine'):
        make().freeze('nothing')


def test_frozen_parts_get_no_gradient():
    network = make()
    network.freeze('fine')
    network(picture())[0].sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_provenance_says_where_each_part_comes_from():
    assert make().provenance == {'clip': 'random', 'dino': 'random', 'text': 'random'}
    assert set(make(language=False, dino='none').provenance) == {'clip'}


class Disparity(torch.nn.Module):

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image)[0]


@pytest.mark.slow
def test_exports_and_agrees_with_onnx_runtime():
    network = make().eval().bake_text()
    explicit_attention(network)
    worst, operators = onnx_parity(Disparity(network).eval(), [(64, 96)], picture, (1, 2))
    assert worst < 1e-4
    assert 'Attention' not in operators
