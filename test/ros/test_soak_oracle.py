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
"""The judge of the soak sees what is wrong, and the accounts see what is missing."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import random
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import Image

from hybrid_depth.config import PipelineConfig
from hybrid_depth.matching import source_inputs
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.runtime import BackendOptions, load_backend
from hybrid_depth.types import Frame
from hybrid_depth_ros.conversions import fill_float_image
from hybrid_depth_ros.soak import report, scene
from hybrid_depth_ros.soak.campaign import order, Tally
from hybrid_depth_ros.soak.faults import FAULTS
from hybrid_depth_ros.soak.oracle import Account, Oracle, Sent, unaccounted
from hybrid_depth_ros.soak.world import Restart, World

CAMERA = scene.CAMERAS['front']


def depth_message(number: int, fx: float = 100.0, stamp: int = 7, frame: str = 'cam') -> Image:
    message = Image()
    message.header.stamp.sec = stamp
    message.header.frame_id = frame
    fill_float_image(message, scene.depth_of(scene.image_of(number, CAMERA), fx))
    return message


@pytest.fixture
def oracle() -> Oracle:
    made = Oracle()
    made.expect((7, 0), Sent('cam', 128, 96, scene.image_of(5, CAMERA), (100.0,)))
    return made


def test_the_right_depth_is_right_once(oracle: Oracle) -> None:
    assert oracle.judge(depth_message(5))
    assert not oracle.judge(depth_message(5))
    assert len(oracle.wrong) == 1
    assert 'one more output' in oracle.wrong[0]


@pytest.mark.parametrize(('message', 'words'), [
    (lambda: depth_message(4), 'off by'),
    (lambda: depth_message(5, fx=100.5), 'factor of 1.005'),
    (lambda: depth_message(5, fx=150.0), 'factor of 1.5'),
    (lambda: depth_message(5, stamp=8), 'no image had this stamp'),
    (lambda: depth_message(5, frame='odom'), "frame 'odom'"),
])
def test_wrong_depth_is_wrong(oracle: Oracle, message: Callable[[], Image], words: str) -> None:
    assert not oracle.judge(message())
    assert words in oracle.wrong[0]


def test_depth_of_what_cannot_be_understood_is_wrong(oracle: Oracle) -> None:
    oracle.expect((9, 0), Sent('cam', 128, 96, None, ()))
    assert not oracle.judge(depth_message(5, stamp=9))


def test_nan_is_wrong(oracle: Oracle) -> None:
    message = depth_message(5)
    np.frombuffer(message.data, np.float32)[3] = np.nan
    assert not oracle.judge(message)


def test_accounts() -> None:
    values = {'frames_received': '10', 'frames_processed': '6', 'drops.replaced': '2',
              'drops.truncated': '1', 'frames_lost': '3'}
    account = Account.of(values)
    assert (account.dropped, account.lost) == (3, 3)
    assert account.problem() == ''
    assert 'leave 3 images' in Account.of({**values, 'frames_received': '12'}).problem()
    assert 'leave -1' in Account.of({**values, 'frames_received': '8'}).problem()
    later = Account(20, 14, 5, 4)
    assert unaccounted(account, later, 11) == 0
    assert unaccounted(account, later, 12) == 1


def test_order_is_all_in_turn_and_then_all_in_another_order() -> None:
    kinds = list('abcdefgh')
    stream = order(kinds, random.Random(1))
    rounds = [[next(stream) for _ in kinds] for _ in range(3)]
    assert rounds[0] == kinds
    assert sorted(rounds[1]) == sorted(rounds[2]) == kinds
    assert len({tuple(one) for one in rounds}) == 3


def test_growth_is_of_the_warm_process() -> None:
    assert Tally(memory=[50, 60, 100, 100, 100, 100, 103, 103]).memory_growth_percent() == \
        pytest.approx(3.0)
    assert Tally(memory=[50, 90, 100, 100]).memory_growth_percent() == pytest.approx(100 / 9)
    assert Tally().memory_growth_percent() == 0.0


def test_a_slow_start_is_a_problem_unless_others_had_the_cpus() -> None:
    quick, waited, slow = (Restart(active_s, 0.5, waited_s, active_s + 0.3)
                           for active_s, waited_s in ((0.6, None), (9.0, 8.4), (2.4, 0.6)))
    unknown = Restart(None, None, None, 3.0)
    assert (quick.own_s, unknown.own_s) == (0.6, None)
    figures = {'recovery_frames_max': 1, 'memory_growth_percent': 0.0}

    def problems(*restarts: Restart) -> list[str]:
        world = SimpleNamespace(crashes=[], restarts=restarts,
                                driver=SimpleNamespace(oracle=SimpleNamespace(wrong=[])))
        return report.problems(world, Tally(), figures)
    assert problems(quick, waited, unknown) == []
    (found,) = problems(quick, slow)
    assert 'took 1.8 s' in found


class _Children:
    """Two nodes that end at once, and one that lives."""

    def __init__(self) -> None:
        self.left = 2

    def start(self, name: str, command: list[str]) -> None:
        pass

    def status(self, name: str) -> int | None:
        self.left -= 1
        return 0 if self.left >= 0 else None


def test_a_restart_is_measured_from_the_last_end(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver(SimpleNamespace):

        def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
            clock[0] += 0.1
            if condition is not None and not condition():
                self.right.append(clock[0])
                self.process = {f'start.{name}_s': '0.50' for name in ('active', 'cpu', 'waited')}
            return True
    clock = [100.0]
    monkeypatch.setattr('hybrid_depth_ros.soak.world.time',
                        SimpleNamespace(monotonic=lambda: clock[0]))
    driver = Driver(right=[], process={}, status={}, good=lambda: None,
                    image_readers=lambda: {b'new'})
    world = World(_Children(), driver, random.Random(0), tmp_path)
    for end_s in (110.0, 120.0):
        clock[0] = end_s
        world._is_end_expected = True
        assert world.supervise()
    driver.status['state'] = 'active'
    assert world.wait_ready()
    assert world.ends == 2
    (restart,) = world.restarts
    assert restart.active_s == 0.5
    assert 0 < restart.depth_s < 1.0


def test_every_fault_says_what_it_does() -> None:
    assert len(FAULTS) == 21
    assert all(fault.description.endswith('.') and '\n' not in fault.description
               for fault in FAULTS.values())


def test_the_model_gives_the_depth_that_the_judge_expects(tmp_path: Path) -> None:
    path = tmp_path / 'model.onnx'
    scene.write_model(path)
    pipeline = DepthPipeline(PipelineConfig(model=str(path), cpu_threads=1))
    errors, modes = [], []
    for index in range(24):
        seconds, pose = index / 20, np.eye(4)
        pose[2, 3] = scene.position_m(seconds)
        image_rgb = scene.image_of(index, CAMERA)
        result = pipeline.run(Frame(image_rgb, int(1e9 + seconds * 1e9), 'cam', CAMERA, pose))
        errors.append(np.abs(result.depth_m / scene.depth_of(image_rgb, 100.0) - 1).max())
        modes.append(result.mode)
    pipeline.close()
    assert max(errors) < 1e-4
    assert modes[-1] == 'posed'


def test_a_false_motion_shows_in_the_depth(tmp_path: Path) -> None:
    path = tmp_path / 'model.onnx'
    scene.write_model(path)
    spec = scene.model_spec()
    backend = load_backend('ort', path, spec, (96, 128), BackendOptions(cpu_threads=1))
    image_rgb = scene.image_of(3, CAMERA)
    feed = {'image': image_rgb[None], 'K': CAMERA.K.astype(np.float32)[None],
            **source_inputs(spec, [])}
    features = backend.infer(feed)['features']
    feed |= {'source_features': (features, features)}
    for valid, way_m, factor in ((1, 2.0, 1.0), (1, 2.6, 1.5), (0, 2.6, 1.0)):
        feed['source_valid'] = np.array([[1, valid]], np.float32)
        feed['source_T_target'] = np.eye(4, dtype=np.float32)[None, None].repeat(2, 1)
        feed['source_T_target'][0, 1, 2, 3] = way_m
        depth = backend.infer(feed)['depth'][0, 0]
        np.testing.assert_allclose(depth, scene.depth_of(image_rgb, 100.0) * factor, rtol=1e-5)
    backend.close()
