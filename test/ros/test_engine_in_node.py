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
"""The node's topics live while an engine is built, and no frame is wrong then or later."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
import os
from pathlib import Path
import signal
import subprocess
import sys

from diagnostic_msgs.msg import DiagnosticStatus
from fake_engine import InThisProcess, MARK, Workshop, workshop, write_golden
from node_bench import Bench, camera_info
import numpy as np
import pytest
from ros_messages import HEIGHT, WIDTH
from tiny_model import tiny_spec, write_tiny_model

from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth_ros import build_only as build_only_module
from hybrid_depth_ros.build_only import build_only
from hybrid_depth_ros.diagnostics import HARMLESS_DROPS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with workshop(tmp_path) as made:
        yield made


@pytest.fixture
def bench(shop: Workshop, tmp_path: Path) -> Iterator[Bench]:
    path = tmp_path / 'model.onnx'
    write_tiny_model(path)
    write_golden(path, tiny_spec(), (HEIGHT, WIDTH))
    made = Bench(partial(DepthPipeline, is_live=True), model=str(path), cpu_threads=1,
                 engine_cache=str(shop.cache))
    yield made
    made.close()


def depth_of(message: object) -> float:
    depth = np.frombuffer(message.data, np.float32)  # type: ignore[attr-defined]
    assert np.isfinite(depth).all()
    assert np.ptp(depth) < 1e-3 * depth.mean()
    return float(np.median(depth))


def test_the_node_publishes_while_an_engine_is_built(bench: Bench, shop: Workshop) -> None:
    shop.hold()
    bench.start('depth/image')
    bench.calibrate()
    for _ in range(3):
        bench.send_and_wait()
    bench.until(lambda: bool(shop.builds))  # in a process of its own, which takes its time
    bench.send_and_wait()
    bench.diagnosed(lambda status, facts: 'on its way' in facts.get('engine.state', '')
                    and 'building fp16' in facts['engine.state']
                    and 'ONNX Runtime' in facts['backend'])
    shop.release()

    def is_used() -> bool:
        bench.send_and_wait()
        return bench.pipeline.backend_description.startswith('fake')

    bench.until(is_used)
    for _ in range(3):
        bench.send_and_wait()
    bench.diagnosed(lambda status, facts: facts.get('engine.state') == 'in use'
                    and facts['backend'].startswith('fake engine 128x96')
                    and facts['engine.choice'] == 'fake, the first of auto'
                    and 'fp16 accepted' in facts['engine.steps'])
    depths = np.array([depth_of(message) for message in bench.received['depth/image']])
    ratios = depths / depths[0]
    np.testing.assert_allclose(ratios[:4], 1, rtol=1e-5)  # of the CPU
    np.testing.assert_allclose(ratios[-3:], MARK, rtol=1e-5)  # of the engine
    assert np.isclose(ratios[:, None], [1, MARK], rtol=1e-5).any(axis=1).all()
    assert set(bench.drops()) <= HARMLESS_DROPS


def test_an_engine_that_is_refused_is_a_warning(bench: Bench, shop: Workshop,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    shop.manners(fp16='wrong', fp16_safe='nan', fp32='constant')
    monkeypatch.setattr('hybrid_depth.runtime.build_process.BuildProcess', _Inside)
    bench.start('depth/image')
    bench.calibrate()
    bench.send_and_wait()
    bench.until(lambda: bool(bench.pipeline.backend_complaint()))
    since = len(bench.diagnostics)
    bench.send_and_wait()
    bench.diagnosed(lambda status, facts: status.level == DiagnosticStatus.WARN
                    and 'fp16 refused' in status.message
                    and 'depth is by ONNX Runtime' in status.message
                    and facts['engine.state'].startswith('none: '), since)
    depths = [depth_of(message) for message in bench.received['depth/image']]
    np.testing.assert_allclose(depths, depths[0], rtol=1e-5)


class _Inside(InThisProcess):

    def __init__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(('manner', 'status'), [('right', 0), ('wrong', 1)])
def test_build_only(bench: Bench, shop: Workshop, manner: str, status: int,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    shop.manners(fp16=manner, fp16_safe=manner, fp32=manner)
    monkeypatch.setattr(build_only_module, 'BuildProcess', _Inside)

    def spin_once(seconds: float) -> None:
        bench.infos.publish(camera_info())
        bench.executor.spin_once(timeout_sec=0.02)

    assert build_only(bench.node, bench.node.settings_by_camera, spin_once,
                      lambda: False) == status
    assert shop.builds == (['fp16'] if status == 0 else ['fp16', 'fp16_safe', 'fp32'])


def test_a_process_that_only_builds_can_be_stopped(tmp_path: Path, tiny_model: Path) -> None:
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(2 + os.getpid() % 100),
                   'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
    process = subprocess.Popen(
        [sys.executable, '-m', 'hybrid_depth_ros.depth_node', '--ros-args', '-p',
         f'model:={tiny_model}', '-p', 'build_only:=true', '-p', f'engine_cache:={tmp_path}'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert any('waiting for camera_info on /camera_info' in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 1, rest
        assert 'Traceback' not in rest
    finally:
        process.kill()
