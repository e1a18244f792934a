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
"""A whole CLIP of open_clip's own class, in every form of file that CLIP is published in."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth_training.models import text as text_module  # noqa: E402
from hybrid_depth_training.models.text import text_features, TextModel, TextTower  # noqa: E402
from hybrid_depth_training.torchvision_guard import guarded_import  # noqa: E402

PROMPTS = ['a kitchen', 'an office corridor', 'a residential street in the rain']
VISION = {'image_size': 32, 'layers': 1, 'width': 64, 'patch_size': 16}
TEXT = {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 2}


@pytest.fixture(scope='module')
def clip():
    """Return a small random CLIP with OpenAI's activation."""
    guarded_import('open_clip')
    from open_clip.model import CLIP
    torch.manual_seed(3)
    return CLIP(64, VISION, TEXT, quick_gelu=True).eval()


@pytest.fixture(scope='module')
def expected(clip):
    from open_clip.tokenizer import SimpleTokenizer
    with torch.no_grad():
        return clip.encode_text(SimpleTokenizer()(PROMPTS))


class Archive(nn.Module):
    """The parameters of a CLIP under OpenAI's names; what it computes is of no matter."""

    def __init__(self, state) -> None:
        super().__init__()
        for name, value in state.items():
            parts, at = name.split('.'), self
            for part in parts[:-1]:
                if not hasattr(at, part):
                    at.add_module(part, nn.Module())
                at = getattr(at, part)
            at.register_buffer(parts[-1], value)

    def forward(self, x):
        return x + 1


def openai_state(clip):
    """Return what OpenAI's archives hold: halves, but for the norms, and the sizes."""
    state = {key: value if 'ln_' in key else value.half()
             for key, value in clip.state_dict().items()}
    return {**state, 'input_resolution': torch.tensor(32), 'context_length': torch.tensor(77),
            'vocab_size': torch.tensor(49408)}


def write(kind: str, clip, folder):
    path, state = folder / f'{kind}.pt', clip.state_dict()
    if kind == 'open_clip_safetensors':
        path = folder / 'open_clip_model.safetensors'
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    elif kind == 'open_clip_bin':
        path = folder / 'open_clip_pytorch_model.bin'
        torch.save(state, path)
    elif kind == 'open_clip_checkpoint':  # as its training writes, and its releases are
        torch.save({'epoch': 32, 'name': 'run', 'optimizer': {'state': {0: {'step': 7}}},
                    'state_dict': {f'module.{key}': value for key, value in state.items()}}, path)
    elif kind == 'custom_text':  # towers side by side, with the mask that old versions kept
        torch.save({**{key if key.startswith(('visual.', 'logit')) else f'text.{key}': value
                       for key, value in state.items()},
                    'text.attn_mask': torch.zeros(77, 77)}, path)
    elif kind == 'openai_state_dict':
        torch.save(openai_state(clip), path)
    else:
        traced = torch.jit.trace(Archive(openai_state(clip)), torch.zeros(1))
        torch.jit.save(traced, path)
    return path


@pytest.mark.parametrize(('kind', 'tolerance'), [
    ('open_clip_safetensors', 1e-5), ('open_clip_bin', 1e-5), ('open_clip_checkpoint', 1e-5),
    ('custom_text', 1e-5), ('openai_state_dict', 5e-3), ('openai_archive', 5e-3)])
def test_every_published_form_gives_the_features_of_clip_itself(clip, expected, tmp_path, kind,
                                                                tolerance):
    found = text_features(PROMPTS, 'tiny', str(write(kind, clip, tmp_path)), tmp_path / 'cache')
    assert found.dtype == torch.float32  # also where the file holds halves
    assert (found - expected).abs().max() < tolerance * expected.abs().max()
    assert found.std() > 0.1  # and they are no zeros


def test_other_activation_is_another_tower(clip, expected, tmp_path, monkeypatch):
    path = str(write('open_clip_bin', clip, tmp_path))
    monkeypatch.setitem(text_module.TEXT_MODELS, 'gelu',
                        TextModel(32, 2, 2, 64, quick_gelu=False))
    found = text_features(PROMPTS, 'gelu', path, tmp_path / 'cache')
    assert (found - expected).abs().max() > 1e-3 * expected.abs().max()


def test_any_tag_of_open_clip_is_fetched_and_read(clip, expected, tmp_path, monkeypatch):
    import open_clip.pretrained as pretrained
    path = write('open_clip_checkpoint', clip, tmp_path)
    asked = []
    monkeypatch.setattr(pretrained, 'download_pretrained',
                        lambda cfg: (asked.append(cfg), str(path))[1])
    monkeypatch.setattr(text_module, '_open_clip_row',
                        lambda name: TextModel(32, 2, 2, 64, quick_gelu=True))
    found = text_features(PROMPTS, 'open_clip/ViT-B-32-quickgelu', 'laion400m_e31',
                          tmp_path / 'cache')
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert 'laion400m' in asked[0]['hf_hub']


def test_weights_of_the_other_activation_name_the_model_they_are_of():
    with pytest.raises(ConfigError, match=r'text_model: open_clip/RN50-quickgelu$'):
        TextTower('open_clip/RN50', 'openai')


def test_weights_that_cannot_be_fetched_name_the_command_and_the_file_option(monkeypatch):
    import open_clip.pretrained as pretrained

    def no_network(cfg):
        raise OSError('no network')
    monkeypatch.setattr(pretrained, 'download_pretrained', no_network)
    with pytest.raises(ContractError) as caught:
        TextTower('open_clip/ViT-B-32', 'laion2b_e16')
    for part in ('download_pretrained', '"ViT-B-32", "laion2b_e16"', 'cache_dir="weights"',
                 'file that it prints', 'random'):
        assert part in str(caught.value)


def test_command_of_the_error_is_python_that_open_clip_understands(monkeypatch):
    import open_clip.pretrained as pretrained
    monkeypatch.setattr(pretrained, 'download_pretrained_from_hf',
                        lambda model_id, **more: (model_id, more['cache_dir']))
    cfg = pretrained.get_pretrained_cfg('ViT-B-32', 'laion2b_e16')
    assert pretrained.download_pretrained(cfg, cache_dir='weights') == (
        'timm/vit_base_patch32_clip_224.laion2b_e16', 'weights')
