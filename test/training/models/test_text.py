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
"""Prompts, the text tower, its cache, and how pixels are compared with words."""
import math

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth_training.models import text as text_module  # noqa: E402
from hybrid_depth_training.models.text import (  # noqa: E402
    depth_phrases,
    DepthPrompts,
    normalise_text,
    pixel_logits,
    text_channels,
    text_features,
    text_rows,
    TextTower,
    tokenise,
)


@pytest.fixture(scope='module')
def whole():
    """Return open_clip's own text tower, of the tiny size."""
    tower = TextTower('tiny', 'random')  # makes open_clip importable
    from open_clip.transformer import QuickGELU, TextTransformer
    torch.manual_seed(0)
    del tower
    return TextTransformer(width=32, heads=2, layers=2, output_dim=64,
                           act_layer=QuickGELU).eval()


@pytest.fixture(scope='module')
def clip_file(whole, tmp_path_factory):
    """Return a file like that of a whole CLIP."""
    path = tmp_path_factory.mktemp('clip') / 'clip.pt'
    torch.save({**whole.state_dict(), 'visual.conv1.weight': torch.zeros(2),
                'logit_scale': torch.ones(()), 'context_length': torch.tensor(77)}, path)
    return str(path)


def test_phrases_go_from_close_to_distant():
    assert depth_phrases() == [
        'This patch appears to be very close', 'This patch appears to be close',
        'This patch appears to be slightly close',
        'This patch appears to be neither close nor distant',
        'This patch appears to be slightly distant', 'This patch appears to be distant',
        'This patch appears to be very distant']
    assert depth_phrases('lane')[1] == 'This lane appears to be close'


def test_tokens_end_where_the_text_ends():
    ids, end = tokenise(['This patch appears to be close', 'This patch appears to be very close'])
    assert ids.shape == (2, 9)
    assert end.tolist() == [7, 8]
    assert ids[0, 0] == 49406
    assert ids[0, 7] == ids[1, 8] == 49407


def test_short_text_gives_what_open_clip_gives_at_full_length(whole, clip_file):
    from open_clip.tokenizer import SimpleTokenizer
    tower = TextTower('tiny', clip_file).eval()
    with torch.no_grad():
        expected = whole(SimpleTokenizer()(depth_phrases()))
        assert torch.allclose(tower.encode(depth_phrases()), expected, atol=1e-4)


def test_prompts_are_the_phrase_with_a_learned_last_word(clip_file):
    tower = TextTower('tiny', clip_file).eval()
    prompts = DepthPrompts(2, tower.width)
    ids, end = tokenise(['This patch appears to be close', 'This patch appears to be distant'])
    with torch.no_grad():  # what the words 'close' and 'distant' are taken from the vocabulary
        prompts.words.copy_(tower.token_embedding(ids[torch.arange(2), end - 1]))
        expected = tower.encode(['This patch appears to be close',
                                 'This patch appears to be distant'])
        assert torch.allclose(prompts(tower), expected, atol=1e-6)


def test_learned_words_start_small_and_get_gradients():
    torch.manual_seed(0)
    tower = TextTower('tiny', 'random')
    prompts = DepthPrompts(500, tower.width)
    assert float(prompts.words.detach().std()) == pytest.approx(0.02, rel=0.05)
    normalise_text(prompts(tower)).pow(3).sum().backward()
    assert prompts.words.grad.abs().sum(dim=1).min() > 0
    assert tower.text_projection.grad.abs().sum() > 0


@pytest.mark.parametrize('count', [7, 256])
def test_frobenius_makes_each_row_one_over_the_root_of_their_number(count):
    text = normalise_text(torch.randn(count, 64) * torch.rand(count, 1) * 9)
    assert torch.allclose(text.norm(dim=1), torch.full((count,), 1 / math.sqrt(count)), atol=1e-6)
    assert torch.allclose(normalise_text(torch.randn(count, 64), False).norm(dim=1),
                          torch.ones(count), atol=1e-6)


def test_logits_are_100_over_root_n_times_the_cosine():
    torch.manual_seed(0)
    features, text = torch.randn(2, 64, 3, 5) * 7, torch.randn(256, 64)
    logits = pixel_logits(features, normalise_text(text))
    cosine = torch.nn.functional.cosine_similarity(features[1, :, 2, 4], text[17], dim=0)
    assert logits.shape == (2, 256, 3, 5)
    assert torch.allclose(logits[1, 17, 2, 4], 6.25 * cosine, atol=1e-5)


def test_norm_survives_half_precision():
    features = torch.full((1, 1024, 1, 1), 100.0, dtype=torch.float16)  # squares sum to 1e7
    text = normalise_text(torch.ones(256, 1024)).half()
    assert torch.allclose(pixel_logits(features, text).float(), torch.tensor(6.25), atol=0.01)


def test_cached_text_equals_uncached_and_is_not_computed_again(clip_file, tmp_path, monkeypatch):
    expected = TextTower('tiny', clip_file).eval().encode(depth_phrases()).detach()
    monkeypatch.setitem(text_module.TEXT_MODELS, 'other', text_module.TEXT_MODELS['tiny'])
    first = text_features(depth_phrases(), 'tiny', clip_file, tmp_path)
    assert torch.equal(first, expected)
    assert len(list(tmp_path.iterdir())) == 1
    text_features(depth_phrases('lane'), 'tiny', clip_file, tmp_path)
    text_features(depth_phrases(), 'other', clip_file, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # other prompts and another model are kept apart

    def no_tower(*_):
        raise AssertionError('was computed again')

    monkeypatch.setattr(text_module, 'TextTower', no_tower)
    assert torch.equal(text_features(depth_phrases(), 'tiny', clip_file, tmp_path), expected)


def test_other_weights_are_not_taken_for_known_ones(clip_file, tmp_path):
    state = torch.load(clip_file)
    state['text_projection'] = state['text_projection'] * 2
    torch.save(state, tmp_path / 'other.pt')
    cache = tmp_path / 'cache'
    one = text_features(depth_phrases(), 'tiny', clip_file, cache)
    other = text_features(depth_phrases(), 'tiny', str(tmp_path / 'other.pt'), cache)
    assert torch.allclose(other, 2 * one, atol=1e-5)


def test_random_text_is_never_kept(tmp_path):
    text_features(['close'], 'tiny', 'random', tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_random_text_is_the_same_each_time():
    before = torch.random.get_rng_state()
    one = text_features(['a kitchen', 'an office'], 'tiny', 'random')
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(text_features(['an office'], 'tiny', 'random')[0], one[1])
    assert (one[0] - one[1]).abs().max() > 0.01


def test_rows_are_of_length_1_and_follow_the_order_of_the_prompts():
    prompts = ['a kitchen', 'an office corridor', 'a street']
    rows = text_rows(prompts, 'tiny', 'random')
    assert rows.shape == (3, 64)
    assert torch.allclose(rows.norm(dim=1), torch.ones(3))
    assert torch.allclose(text_rows(prompts[::-1], 'tiny', 'random'), rows.flip(0), atol=1e-6)


def test_words_come_after_the_whole_sentence():
    whole = text_features(['a kitchen', 'an office corridor'], 'tiny', 'random')
    words = text_features(['a kitchen', 'an office corridor'], 'tiny', 'random', tokens=8)
    assert words.shape == (2, 8, 64)
    assert torch.allclose(words[:, 0], whole, atol=1e-5)
    # start, "a", "kitchen" and start, "an", "office", "corridor"; the end is row 0
    assert (words.abs().amax(-1) > 0).sum(1).tolist() == [4, 5]
    few = text_features(['an office corridor'], 'tiny', 'random', tokens=3)
    assert torch.allclose(few, words[1:, :3], atol=1e-5)


def test_any_model_of_open_clip_that_has_the_form_of_clip():
    assert text_channels('open_clip/ViT-H-14') == 1024
    assert text_channels('clip_vit_l14') == 768  # of text; its image tower is 1024 wide
    with pytest.raises(ConfigError, match='list_models'):
        text_channels('open_clip/no-such')
    with pytest.raises(ConfigError, match='form of CLIP'):
        text_channels('open_clip/xlm-roberta-base-ViT-B-32')


def test_unknown_model_and_foreign_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match='clip_rn50'):
        TextTower('bert', 'random')
    torch.save({'visual.conv1.weight': torch.zeros(2)}, tmp_path / 'image_only.pt')
    with pytest.raises(ContractError, match='TextTransformer'):
        TextTower('tiny', str(tmp_path / 'image_only.pt'))
    with pytest.raises(ConfigError, match='neither a file'):
        TextTower('tiny', 'openai')  # the tiny one is nowhere to be had
