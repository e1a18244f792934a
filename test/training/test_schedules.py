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
"""Learning rates over a run, against torch's own schedulers where it has them."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch.optim import lr_scheduler  # noqa: E402

from hybrid_depth_training.schedules import BETA1, SCHEDULES  # noqa: E402


def rates(config, steps=None):
    return [SCHEDULES[config.schedule](step, config) for step in range(steps or config.steps)]


def theirs(make, steps):
    """Return torch's learning rates, as factors on 1, and beta1 of every step."""
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        (group,) = optimizer.param_groups
        found.append((group['lr'], group['betas'][0]))
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_rises_then_falls_to_zero(tiny_config):
    factors = [rate.factor for rate in rates(tiny_config(steps=100, warmup_steps=10), 101)]
    assert factors[9] == max(factors) == pytest.approx(1.0)
    assert factors[0] == pytest.approx(0.1)
    assert factors[100] == pytest.approx(0.0)


def test_onecycle_is_that_of_torch(tiny_config):
    config = tiny_config(schedule='onecycle', steps=200, warmup_steps=50)
    expected = theirs(lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=200, div_factor=25, final_div_factor=100,
        base_momentum=0.85, max_momentum=0.95), 199)
    for mine, (factor, beta1) in zip(rates(config), expected, strict=False):
        assert mine.factor == pytest.approx(factor, rel=1e-6)
        assert mine.beta1 == pytest.approx(beta1, rel=1e-6)


@pytest.mark.parametrize(('drop_every', 'every'), [(0, 75), (20, 20)])
def test_step_is_that_of_torch(tiny_config, drop_every, every):
    config = tiny_config(schedule='step', steps=100, warmup_steps=0, drop_every=drop_every)
    expected = theirs(lambda optimizer: lr_scheduler.StepLR(optimizer, every, 0.1), 100)
    for mine, (factor, _) in zip(rates(config), expected, strict=True):
        assert mine == pytest.approx((factor, BETA1))


def test_step_warms_up(tiny_config):
    config = tiny_config(schedule='step', steps=100, warmup_steps=4)
    assert [rate.factor for rate in rates(config)][:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_runs_of_a_few_steps_work(tiny_config, schedule):
    for steps in (1, 2, 3):
        for rate in rates(tiny_config(schedule=schedule, steps=steps)):
            assert 0 < rate.factor <= 1
