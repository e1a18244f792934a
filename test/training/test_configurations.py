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
"""Every configuration in config/training can be read, built and trained, here on miniatures."""
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny_data
import yaml

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.__main__ import _train_parser  # noqa: E402
from hybrid_depth_training.config import GroupConfig, TrainConfig  # noqa: E402
from hybrid_depth_training.models.hybrid import HybridConfig  # noqa: E402
from hybrid_depth_training.objectives import OBJECTIVES  # noqa: E402
from hybrid_depth_training.train import build  # noqa: E402
from hybrid_depth_training.views import DataMix  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / 'config' / 'training'
FILES = [file for file in sorted(FOLDER.glob('*.yaml'))
         if 'variants' not in yaml.safe_load(file.read_text())]  # those are of `ablate`
# options of a dataset that the configuration sets and the miniature has too
KEPT_OPTIONS = ('mark_lanes', 'sky', 'truth', 'poses')
# of HybridDepth: the same parts, with fewer weights
SMALL_HYBRID = {'dino': 'dinov2_vits14', 'text_model': 'tiny', 'prompts': 8, 'align_channels': 16,
                'decoder_width': 16, 'out_channels': [8, 12, 16, 16]}


# of ClipPriorDepth: likewise, and a range that the miniatures lie in
SMALL_CLIP_PRIOR = {'backbone_weights': 'random', 'width': 16, 'bins': 16, 'trca_width': 32,
                    'text_model': 'tiny', 'max_depth_m': 80.0}


def read(file: Path) -> TrainConfig:
    parser = _train_parser()
    options = parser.parse_args(['--run', str(file), '--out', 'runs/x'])
    config: TrainConfig = parser.instantiate(options).run
    return config


def without_files(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """Take random weights wherever weights come by name, from a file or from another run."""
    random = {field.name: 'random' for field in fields(kind)
              if field.name.endswith('weights') and isinstance(field.default, str)}
    return {**options, **random, **{key: '' for key in options if key.endswith('_from')}}


def small_options(config: TrainConfig) -> dict[str, Any]:
    module, _, name = OBJECTIVES[config.objective].partition(':')
    options = without_files(getattr(import_module(module), name).Options, config.options)
    if 'hybrid' in options:
        options['hybrid'] = small_hybrid(options['hybrid'])
    if 'clip_prior' in options:
        network = {**options['clip_prior'], **SMALL_CLIP_PRIOR}
        if 'swin' in network['backbone']:
            network['backbone'] = 'swin_tiny'
        if 'hybrid' in network:
            network['hybrid'] = small_hybrid(network['hybrid'])
        options['clip_prior'] = network
    return options


def small_hybrid(options: dict[str, Any]) -> dict[str, Any]:
    small = {key: value for key, value in SMALL_HYBRID.items()
             if key != 'dino' or options.get(key) != 'none'}
    return without_files(HybridConfig, {**options, **small})


def reduced(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return ``config`` on miniatures of its datasets: one small image a step, random weights."""
    sources = []
    for number, source in enumerate(config.sources):
        path = folder / str(number)
        path.mkdir()
        options = tiny_data.WRITERS[source.dataset](path)
        options |= {key: source.options[key] for key in KEPT_OPTIONS if key in source.options}
        sources.append(replace(source, path=str(path), options=options,
                               hold_out=0.0 if source.weight else 1.0))
    groups = {name: GroupConfig(*small_size(group), group.weight)
              for name, group in config.groups.items()}
    return replace(config, sources=sources, groups=groups, steps=1, batch=1, accumulate=1,
                   threads=1, workers=0, devices=1, precision='32-true', init_from='',
                   options=small_options(config))


def small_size(group: GroupConfig) -> tuple[int, int]:
    """Return a size that suits networks on patches of 14 pixels where the whole one does."""
    is_of_patches = group.height % 14 == 0 and group.width % 14 == 0
    return (224, 224) if is_of_patches else (64, 96)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_one_step(file, tmp_path):
    config = read(file)
    assert config.name == file.stem
    config = reduced(config, tmp_path)
    torch.manual_seed(0)
    objective = build(config)
    mix = DataMix(config)
    terms = objective.train().loss(mix.batch(0), 0)
    assert all(torch.isfinite(value).all() for value in terms.values()), terms
    terms['loss'].backward()
    gradients = [p.grad for group in objective.parameter_groups() for p in group['params']
                 if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
