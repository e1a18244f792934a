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
"""The live viewer: what the node publishes reaches the stream, frame by frame."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nav_msgs.msg import OccupancyGrid
from node_bench import Bench
import numpy as np
import pytest
from ros_messages import HEIGHT, WIDTH

pytest.importorskip('rerun', reason='rerun is not installed: the viewer is optional')
from hybrid_depth.camera import CameraModel
from hybrid_depth_ros import viewer as viewer_module
from hybrid_depth_ros.viewer import main, open_stream, parse_arguments, Viewer

pytestmark = pytest.mark.usefixtures('ros')


class Stream:
    """Collects what is logged, by path."""

    def __init__(self) -> None:
        self.logged: dict[str, list[Any]] = {}
        self.blueprints: list[Any] = []

    def log(self, path: str, what: Any, static: bool = False) -> None:
        self.logged.setdefault(path, []).append(what)

    def set_time(self, timeline: str, timestamp: Any) -> None:
        self.time = timestamp

    def send_blueprint(self, blueprint: Any) -> None:
        self.blueprints.append(blueprint)


@pytest.fixture
def shown(bench: Bench) -> Iterator[tuple[Bench, Viewer, Stream]]:
    """Return a calibrated node and a viewer of it."""
    stream = Stream()
    viewer = Viewer(stream, 'hybrid_depth', False, 80.0)
    bench.executor.add_node(viewer)
    assert bench.node.start()
    # depth, camera_info, sigma, evidence, map
    bench.until(lambda: len(bench.node._resources.cameras[0].outputs.wanted()) == 5)
    bench.until(lambda: bench.images.get_subscription_count() == 2)  # the node and the viewer
    bench.calibrate()
    yield bench, viewer, stream
    bench.executor.remove_node(viewer)
    viewer.destroy_node()


def test_every_frame_is_shown_with_its_parts(shown: tuple[Bench, Viewer, Stream]) -> None:
    bench, viewer, stream = shown
    for count in (1, 2):
        bench.send(stamp_ns=count * 10**9)
        bench.until(lambda count=count: viewer.shown == count
                    and len(stream.logged.get('sigma', [])) == count
                    and len(stream.logged.get('depth/evidence', [])) == count + 1)  # and the names
    assert len(stream.logged['depth']) == len(stream.logged['world/camera/cloud']) == 2
    assert len(stream.blueprints) == 1
    assert viewer._parts == {}


def test_parts_without_the_others_are_forgotten(shown: tuple[Bench, Viewer, Stream]) -> None:
    bench, viewer, _ = shown
    bench.pipeline.error = RuntimeError('no depth')
    for count in range(1, 13):
        bench.send()
        bench.until(lambda count=count: bench.drops().get('model_error') == count)
    bench.until(lambda: len(viewer._parts) > 4)
    assert len(viewer._parts) <= viewer_module._PENDING
    assert viewer.shown == 0


def test_images_of_another_size_are_said_to_be_so(
        shown: tuple[Bench, Viewer, Stream], caplog: pytest.LogCaptureFixture) -> None:
    bench, viewer, _ = shown
    camera = CameraModel(WIDTH, HEIGHT, 100.0, 100.0, 63.5, 47.5).resized(WIDTH // 2, HEIGHT // 2)
    bench.pipeline.more = {'camera': camera, 'depth_m': np.ones((HEIGHT // 2, WIDTH // 2),
                                                                np.float32)}
    bench.send()
    bench.until(lambda: 'size_mismatch' in caplog.text)
    assert viewer.shown == 0


def test_the_map_has_x_up_and_y_to_the_left(shown: tuple[Bench, Viewer, Stream]) -> None:
    _, viewer, stream = shown
    viewer._rr = type('rr', (), {'Image': staticmethod(lambda pixels: pixels)})
    grid = OccupancyGrid()
    grid.info.width, grid.info.height = 3, 2  # 3 cells along x, 2 along y
    grid.data = [-1, -1, 100, 0, -1, -1]
    viewer._show_map(grid)
    # far ahead (largest x) is the first row, the left (largest y) its first column
    assert stream.logged['map'][0].tolist() == [[128, 0], [128, 128], [255, 128]]


def test_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / 'live.rrd'
    stream = open_stream(parse_arguments(['--save', str(path)]))
    stream.flush()
    stream.disconnect()
    assert path.read_bytes()[:3] == b'RRF'


def test_without_rerun_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture) -> None:
    import sys
    monkeypatch.setitem(sys.modules, 'rerun', None)
    assert main(['--save', 'unused.rrd']) == 2
    assert 'pip install rerun-sdk' in capsys.readouterr().err
