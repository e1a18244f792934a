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
Features of prompts for robots that have no text tower: the table beside a model, and more in it.

``python -m hybrid_depth_training embed --model FOLDER --prompts '["a greenhouse"]'``
"""
from __future__ import annotations

from collections.abc import Sequence
import logging
from pathlib import Path

import numpy as np

from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth.scene_prompts import PromptTable, read_table, TABLE, with_prompts, write_table
from hybrid_depth_training.config import TrainConfig
from hybrid_depth_training.data.captions import read_captions, VOCABULARY
from hybrid_depth_training.models.clip_prior.network import ClipPriorConfig
from hybrid_depth_training.models.text import text_rows
from hybrid_depth_training.objectives import read_options
from hybrid_depth_training.objectives.clip_prior import ClipPriorOptions

_SAME = 1e-3  # largest difference of features of length 1 that two machines may make
_log = logging.getLogger(__name__)


def make_table(config: TrainConfig) -> PromptTable:
    """
    Return the table of a run of ``clip_prior``: neutral, vocabulary, and the captions it saw.

    Raises as models.text.text_rows where the text tower cannot be had.
    """
    options = read_options(ClipPriorOptions, config.options)
    network = read_options(ClipPriorConfig, options.clip_prior)
    prompts = [options.neutral, *VOCABULARY]
    for source in config.sources:
        if source.captions:
            prompts += read_captions(Path(source.captions)).values()
    prompts = list(dict.fromkeys(prompts))
    features = text_rows(prompts, network.text_model, options.text_weights, network.tokens)
    return PromptTable(options.neutral, network.text_model, options.text_weights, network.tokens,
                       tuple(prompts), features.numpy().astype(np.float32))


def embed(model: Path, prompts: Sequence[str], weights: str = '') -> PromptTable:
    """
    Add ``prompts`` to the table of the model folder ``model`` and return it.

    ``weights`` of the text tower, where they are not to be had as the model was trained with
    them: a name or a file. Raises ConfigError where they give the neutral prompt other features,
    and that or ContractError where they cannot be had.
    """
    path = model / TABLE
    table = read_table(path)
    unsaid = [prompt for prompt in prompts if not prompt.strip()]
    if unsaid or not prompts:
        raise ConfigError(f'prompts are {list(prompts)}; expected one or more sentences')
    try:
        features = text_rows([table.neutral, *prompts], table.text_model,
                             weights or table.text_weights, table.tokens).numpy()
    except (ConfigError, ContractError) as error:
        raise type(error)(f'{error}. The table was made with {table.text_weights}; where they are '
                          'another file here, give it with --weights') from error
    known = table.find('')[0]
    if features.shape[1] != len(known) or np.abs(features[0] - known).max() > _SAME:
        raise ConfigError(f'the text tower {table.text_model} ({weights or table.text_weights}) '
                          f'gives {table.neutral!r} other features than the model was trained '
                          f'with ({table.text_weights}); give those weights with --weights')
    table = with_prompts(table, prompts, features[1:].astype(np.float32))
    write_table(path, table)
    _log.info('%s has %d prompts now', path, len(table.prompts))
    return table
