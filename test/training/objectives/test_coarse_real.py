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
"""On real frames the coarse stage teaches an order of depth that holds on frames held back."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.augment import AugmentConfig  # noqa: E402
from hybrid_depth_training.config import GroupConfig, SourceConfig, TrainConfig  # noqa: E402
from hybrid_depth_training.objectives.coarse import Coarse  # noqa: E402
from hybrid_depth_training.train import validate  # noqa: E402
from hybrid_depth_training.views import DataMix  # noqa: E402

STEPS = 15
DINO = 'weights/dinov2_vits14_timm_fp16.safetensors'


def test_patches_of_held_back_frames_are_ordered_better_than_by_chance(shared_data):
    config = TrainConfig(
        name='coarse', licence='LicenseRef-none', objective='coarse', batch=2, steps=STEPS,
        groups={'room': GroupConfig(64, 96)}, augment=AugmentConfig(zoom=1.0, roll_deg=0.0),
        sources=[SourceConfig('sevenscenes', str(shared_data / 'sevenscenes_rgbd'), 'room',
                              hold_out=0.2)])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    objective = Coarse(
        {'text': 'orthogonal', 'hybrid': {
            'clip': 'efficientnet_lite0', 'clip_weights': 'imagenet', 'dino': 'dinov2_vits14',
            'dino_weights': str(shared_data / DINO), 'text_model': 'tiny', 'prompts': 8,
            'align_channels': 32, 'decoder_width': 8, 'out_channels': (8, 8, 8, 8)}},
        2e-3, 2e-4, STEPS)
    mix = DataMix(config)
    held_back = mix.validation()
    assert not {index for _, targets in mix.training for _, index in targets} & {
        index for _, targets in mix.held_out for _, index in targets}
    (before,) = validate(objective, held_back)
    frozen = {name: p.clone() for name, p in objective.network.dino.named_parameters()}
    optimizer = torch.optim.AdamW(objective.parameter_groups())
    objective.train()
    for step in range(STEPS):
        optimizer.zero_grad()
        objective.loss(mix.batch(step), step)['loss'].backward()
        optimizer.step()
    (after,) = validate(objective, held_back)
    print(before, after)
    assert before['frames'] == 12
    assert after['order_by_row'] == before['order_by_row']  # the same ladders
    for key in ('order_accuracy', 'proxy_accuracy'):
        assert after[key] > 0.58  # chance is 0.5; 12 views x 24 ladders: far beyond luck
        assert after[key] > before[key] + 0.05
    for name, p in objective.network.dino.named_parameters():
        assert torch.equal(p, frozen[name])
