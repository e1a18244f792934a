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
"""
Depth in words: CLIP's text tower, the prompts, and how pixels are compared with them.

Hybrid-depth (arXiv 2510.09320). The coarse stage uses seven phrases from close to distant; the
fine stage learns the words: one token embedding per prompt. Text does not depend on the image, so
a deployed model holds the finished text features and no text tower.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import hashlib
import json
import os
from pathlib import Path

from safetensors.torch import load_file, save_file
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth_training.models.encoders.clip import (
    CLIP_RN50_HUB,
    CLIP_VIT_B16_HUB,
    CLIP_VIT_L14_HUB,
)
from hybrid_depth_training.torchvision_guard import guarded_import
from hybrid_depth_training.weights import (
    digest,
    find_weights,
    HubFile,
    is_without_values,
    load_weights,
    RANDOM,
    State,
)

CLOSE_TO_DISTANT = ('very close', 'close', 'slightly close', 'neither close nor distant',
                    'slightly distant', 'distant', 'very distant')
TEMPLATE = 'This {object} appears to be {depth}'
LOGIT_SCALE = 100.0
_QUICK = '-quickgelu'  # what open_clip calls the same model with OpenAI's activation
OPEN_CLIP = 'open_clip/'  # before the name of any model of open_clip with CLIP's vocabulary
_RANDOM_SEED = 0  # of random towers: a prompt has the same features in every process
_VOCABULARY = 49408
_START, _END = _VOCABULARY - 2, _VOCABULARY - 1


@dataclass(frozen=True)
class TextModel:
    """A text tower: its size and where its weights are to be had."""

    width: int
    heads: int
    layers: int
    channels: int
    """Length of a text feature"""
    hub: HubFile | None = None
    quick_gelu: bool = True
    """The activation of OpenAI's weights"""


TEXT_MODELS: dict[str, TextModel] = {
    'clip_rn50': TextModel(512, 8, 12, 1024, CLIP_RN50_HUB),
    'clip_vit_b16': TextModel(512, 8, 12, 512, CLIP_VIT_B16_HUB),
    'clip_vit_l14': TextModel(768, 12, 12, 768, CLIP_VIT_L14_HUB),
    'tiny': TextModel(32, 2, 2, 64),  # random weights only: for tests and for trying things out
}


class TextTower(nn.Module):
    """
    CLIP's text transformer (Radford et al., ICML 2021) through open_clip.

    forward(words, end):
        words (N, L, width) token embeddings, L at most 77; end (N,) int64: where each text ends
    returns text features (N, channels), not normalised.

    ``model`` is a row of TEXT_MODELS, or open_clip/NAME for a model of open_clip. Weights:
    'openai' or, of open_clip's models, one of its tags (over the network), 'random', or a file in
    the naming of OpenAI or open_clip.
    """

    def __init__(self, model: str = 'clip_rn50', weights: str = 'openai') -> None:
        super().__init__()
        row = _row(model)
        guarded_import('open_clip')
        from open_clip.transformer import QuickGELU, TextTransformer
        tower = TextTransformer(
            vocab_size=_VOCABULARY, width=row.width, heads=row.heads, layers=row.layers,
            output_dim=row.channels, act_layer=QuickGELU if row.quick_gelu else nn.GELU)
        self.provenance = load_weights(tower, weights, _names(model), _text_tower)
        self.width, self.channels = row.width, row.channels
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection

    def forward(self, words: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        x = self._normalised(words)
        return x[torch.arange(len(x), device=x.device), end] @ self.text_projection

    def _normalised(self, words: torch.Tensor) -> torch.Tensor:
        length = words.shape[1]
        mask = torch.full((length, length), float('-inf'), device=words.device).triu(1)
        x = self.transformer(words + self.positional_embedding[:length], attn_mask=mask)
        return self.ln_final(x)

    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the text features (N, channels) of whole prompts."""
        ids, end = tokenise(prompts)
        device = self.positional_embedding.device
        return self(self.token_embedding(ids.to(device)), end.to(device))

    def encode_words(self, prompts: Sequence[str], count: int) -> torch.Tensor:
        """
        Return the features of every token, (N, count, channels).

        The end's comes first, which is the whole prompt's, then those before it in order; zeros
        where a prompt has fewer.
        """
        ids, end = tokenise(prompts)
        device = self.positional_embedding.device
        x = self._normalised(self.token_embedding(ids.to(device))) @ self.text_projection
        rows = x.new_zeros(len(prompts), count, x.shape[-1])
        for row, features, last in zip(rows, x, end.tolist(), strict=True):
            row[0] = features[last]
            kept = features[:last][:count - 1]
            row[1:1 + len(kept)] = kept
        return rows


class DepthPrompts(nn.Module):
    """
    Prompts 'This patch appears to be <depth_k>' whose last word is learned.

    forward(tower) returns text features (count, channels), not normalised. The words start from
    N(0, 0.02), as CLIP's own did.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(count, width))
        nn.init.normal_(self.words, std=0.02)
        ids, end = tokenise([TEMPLATE.format(object='patch', depth='')])
        before = ids[0, :end[0]].to(self.words.device)
        self.register_buffer('before', before, persistent=False)

    def forward(self, tower: TextTower) -> torch.Tensor:
        count = len(self.words)
        before = tower.token_embedding(self.before).expand(count, -1, -1)
        end = tower.token_embedding.weight[_END].expand(count, 1, -1)
        words = torch.cat([before, self.words[:, None], end], dim=1)
        ends = torch.full((count,), words.shape[1] - 1, device=words.device)
        return tower(words, ends)


def depth_phrases(thing: str = 'patch') -> list[str]:
    """Return the seven prompts of the coarse stage, from close to distant."""
    return [TEMPLATE.format(object=thing, depth=depth) for depth in CLOSE_TO_DISTANT]


def tokenise(prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return token ids (N, L) and where each text ends (N,), with L as long as the longest prompt.

    CLIP pads to 77 tokens, but its text attention is causal and read at the end of the text, so
    what follows changes nothing and costs nine tenths of the work.
    """
    guarded_import('open_clip')
    from open_clip.tokenizer import tokenize
    with torch.device('cpu'):  # these are values, also where networks are made without any
        ids = tokenize(list(prompts))
    end = ids.argmax(dim=1)  # the end token has the highest number
    return ids[:, :int(end.max()) + 1], end


def text_channels(model: str) -> int:
    """Return the length of a text feature of ``model``. Raises ConfigError on an unknown one."""
    return _row(model).channels


def text_rows(prompts: Sequence[str], model: str, weights: str, tokens: int = 0,
              cache: Path | None = None) -> torch.Tensor:
    """
    Return what a network with a text input is fed: (N, channels) features of length 1.

    With ``tokens`` (N, tokens * channels): see TextTower.encode_words. Raises as load_weights.
    """
    text = text_features(prompts, model, weights, cache, tokens)
    return F.normalize(text, dim=-1).flatten(1)


def text_features(prompts: Sequence[str], model: str, weights: str,
                  cache: Path | None = None, tokens: int = 0) -> torch.Tensor:
    """
    Return the text features (N, channels) of fixed prompts, from the disk where they are known.

    With ``tokens`` (N, tokens, channels), those of their words. They are kept in the folder
    ``cache`` (default: ~/.cache/hybrid_depth/text) under the model, the hash of its weights and
    the prompts; nothing is kept of random weights, which are the same each time. Raises as
    load_weights.
    """
    if weights == RANDOM or is_without_values():
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(_RANDOM_SEED)
            return _encode(prompts, model, weights, tokens)
    path = find_weights(weights, _names(model))
    identity = json.dumps([model, digest(path), list(prompts), *([tokens] if tokens else [])])
    folder = cache or _default_cache()
    known = folder / f'{hashlib.sha256(identity.encode()).hexdigest()}.safetensors'
    if known.is_file():
        return load_file(known)['text']
    text = _encode(prompts, model, str(path), tokens)
    folder.mkdir(parents=True, exist_ok=True)
    part = known.with_suffix(f'.{os.getpid()}.part')  # a reader never sees half a file
    save_file({'text': text}, part)
    part.replace(known)
    return text


def normalise_text(text: torch.Tensor, is_frobenius: bool = True) -> torch.Tensor:
    """
    Scale text features (N, D): rows to norm 1, then the whole matrix to Frobenius norm 1.

    So each row ends with norm 1 / sqrt(N), as the paper's code (and DepthCLIP's) has it; without
    ``is_frobenius`` with norm 1.
    """
    text = F.normalize(text, dim=1)
    return text / torch.linalg.matrix_norm(text) if is_frobenius else text


def pixel_logits(features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """
    Compare every pixel with every prompt: (B, D, h, w), (N, D) -> (B, N, h, w).

    100 times the dot product of the pixel's feature, scaled to norm 1, with normalise_text(text):
    100 / sqrt(N) times the cosine. The norm is computed in float32, since a sum of D squares can
    pass what float16 holds.
    """
    unit = F.normalize(features.float(), dim=1).to(features.dtype)
    return F.conv2d(unit, (LOGIT_SCALE * text).to(features.dtype)[:, :, None, None])


@torch.no_grad()
def _encode(prompts: Sequence[str], model: str, weights: str, tokens: int = 0) -> torch.Tensor:
    tower = TextTower(model, weights).eval()
    return tower.encode_words(prompts, tokens) if tokens else tower.encode(prompts)


def _row(model: str) -> TextModel:
    if model.startswith(OPEN_CLIP):
        return _open_clip_row(model.removeprefix(OPEN_CLIP))
    if model not in TEXT_MODELS:
        raise ConfigError(f'unknown text model {model!r}; known: {", ".join(TEXT_MODELS)}, and '
                          f'{OPEN_CLIP}NAME')
    return TEXT_MODELS[model]


def _open_clip_row(name: str) -> TextModel:
    guarded_import('open_clip')
    import open_clip
    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f'open_clip knows no model {name!r}; its names are printed by '
                          "python -c 'import open_clip; print(open_clip.list_models())'")
    text = config['text_cfg']
    plain = {'context_length', 'vocab_size', 'width', 'heads', 'layers'}
    if set(text) != plain or (text['vocab_size'], text['context_length']) != (_VOCABULARY, 77):
        raise ConfigError(f'the text tower of {name} is not of the form of CLIP (Radford et al., '
                          f'ICML 2021): {text}; expected the vocabulary of {_VOCABULARY} words '
                          'and nothing but sizes')
    return TextModel(text['width'], text['heads'], text['layers'], config['embed_dim'],
                     quick_gelu=config.get('quick_gelu', False))


def _names(model: str) -> dict[str, Callable[[], Path]]:
    hub = _row(model).hub
    if hub is not None:
        return {'openai': hub, 'pretrained': hub}
    if not model.startswith(OPEN_CLIP):
        return {}
    import open_clip
    name, quick_gelu = model.removeprefix(OPEN_CLIP), _row(model).quick_gelu
    return {tag: partial(_open_clip_file, name, tag, quick_gelu)
            for tag in open_clip.list_pretrained_tags_by_model(name)}


def _open_clip_file(name: str, tag: str, quick_gelu: bool) -> Path:
    """
    Return the file of open_clip's weights, fetching it first.

    Raises ConfigError where they were trained with another activation than ``quick_gelu`` says,
    ContractError where they cannot be had.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg
    if get_pretrained_cfg(name, tag).get('quick_gelu', False) != quick_gelu:
        other = f'{name.removesuffix(_QUICK)}{"" if quick_gelu else _QUICK}'
        raise ConfigError(f'the weights {tag} were trained with another activation than {name} '
                          f'has; expected text_model: {OPEN_CLIP}{other}')
    try:
        return Path(download_pretrained(get_pretrained_cfg(name, tag)))
    except (OSError, RuntimeError, ValueError) as error:  # no network, or no such file
        raise ContractError(
            f'the weights {tag} of {name} are not on this machine and cannot be fetched '
            f'({type(error).__name__}); on a machine with a network run\n'
            "  python -c 'from open_clip.pretrained import *; print(download_pretrained("
            f"get_pretrained_cfg(\"{name}\", \"{tag}\"), cache_dir=\"weights\"))'\n"
            'and give the file that it prints here instead of the name. Without pretraining, say '
            f'{RANDOM}') from error


def _text_tower(state: State) -> State:
    """Take the text half out of a whole CLIP: what belongs neither to images nor to both."""
    other = ('logit_scale', 'logit_bias', 'input_resolution', 'context_length', 'vocab_size',
             'attn_mask')
    text = {key.removeprefix('text.'): value for key, value in state.items()
            if not key.startswith('visual.')}
    return {key: value for key, value in text.items() if key not in other}


def _default_cache() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'hybrid_depth' / 'text'
