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
"""Depth is learned from a real drive's motion alone: no depth is shown, yet depth improves."""
from kitti_excerpt import excerpt
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.augment import NO_AUGMENT  # noqa: E402
from hybrid_depth_training.config import (  # noqa: E402
    GroupConfig,
    NeighbourConfig,
    SourceConfig,
    TrainConfig,
)
from hybrid_depth_training.objectives import make_objective, Objective  # noqa: E402
from hybrid_depth_training.views import DataMix  # noqa: E402

STEPS = 30


def held_out(objective: Objective, batches: list[dict]) -> dict[str, float]:
    objective.eval()
    figures = [objective.validate(batch) for batch in batches]
    return {key: sum(f[key] for f in figures) / len(figures) for key in figures[0]}


def test_known_motion_teaches_metric_depth(shared_data, tmp_path):
    folder = excerpt(shared_data / 'kitti_odometry' / '01_first51', tmp_path / 'drive', range(20))
    config = TrainConfig(
        name='selfsup', licence='CC-BY-NC-SA-3.0', objective='monodepth2', augment=NO_AUGMENT,
        options={'encoder': 'efficientnet_lite0', 'poses': 'known', 'start_depth_m': 15.0,
                 'scales': 2},
        neighbours=NeighbourConfig([-1, 1]), groups={'street': GroupConfig(64, 192)},
        sources=[SourceConfig('kitti_odometry', str(folder), 'street', hold_out=0.2)],
        batch=2, steps=STEPS, lr=5e-4, encoder_lr=3e-4)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    objective = make_objective(config.objective, config.options, config.lr, config.encoder_lr,
                               config.steps)
    mix = DataMix(config)
    ((_, batches),) = mix.validation()
    before = held_out(objective, batches)
    optimizer = torch.optim.Adam(objective.parameter_groups())
    objective.train()
    for step in range(STEPS):
        batch = mix.batch(step)
        batch['depth_m'] = torch.full_like(batch['depth_m'], float('nan'))  # nothing to peek at
        optimizer.zero_grad()
        objective.loss(batch, step)['loss'].backward()
        optimizer.step()
    after = held_out(objective, batches)
    print(before, after)
    assert len(batches) == 4
    assert after['photometric'] < 0.8 * before['photometric'] < 0.8 * before['photometric_unmoved']
    assert after['abs_rel'] < 0.7 * before['abs_rel']  # metric: no median scaling
    assert after['abs_rel_scaled'] < 0.7 * before['abs_rel_scaled']
    assert after['d1'] > before['d1'] + 0.2
