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
"""The viewer recording: what is in the file is what was added."""
from __future__ import annotations

import sys

import cv2
import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth import recording
from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import ConfigError
from hybrid_depth.recording import Recording

CAMERA = CameraModel(320, 96, 180.0, 180.0, 159.0, 47.0)
IMAGE = np.full((96, 320, 3), (200, 40, 10), np.uint8)


@pytest.fixture(autouse=True)
def _has_rerun():
    pytest.importorskip('rerun', reason='rerun is not installed: viewer recordings are optional')


def chunks_of(path):
    """Return {entity path: record batches} of the newest version of the reader's API."""
    reader = pytest.importorskip('rerun.chunk', reason='this rerun cannot read recordings')
    found = {}
    for chunk in reader.RrdReader(path).stream():
        found.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    return found


def column(batches, name):
    """Return the values of the column whose name ends so, one item for each row in order."""
    values = []
    for batch in batches:
        key = next((key for key in batch.schema.names if key.endswith(name)), None)
        if key is not None:
            values += batch.column(key).to_pylist()
    return values


def test_frames_come_back(tmp_path):
    path = tmp_path / 'a.rrd'
    depth = plane_depth(CAMERA, (0, 1, 0), 1.5)  # the ground 1.5 m below
    pose = np.array([[0.0, 0, 1, 5], [-1, 0, 0, 2], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    with Recording(path, 'test') as stream:
        stream.add(1_000_000_000, IMAGE, CAMERA, depth, pose, depth)
        pose[0, 3] += 1
        stream.add(1_100_000_000, IMAGE, CAMERA, depth, pose, depth)
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ['a.rrd']
    found = chunks_of(path)
    assert {'/world', '/world/camera', '/world/path', '/world/camera/image',
            '/world/camera/image/rgb', '/world/camera/cloud', '/depth', '/truth'} <= set(found)
    points = np.array(column(found['/world/camera/cloud'], 'positions')[0])
    assert len(points) > 1000
    assert np.abs(points[:, 1] - 1.5).max() < 1e-3
    assert points[:, 2].max() <= 80.0
    moved = np.array(column(found['/world/camera'], 'translation')).reshape(2, 3)
    assert moved.tolist() == [[5, 2, 1.5], [6, 2, 1.5]]
    longest = max(column(found['/world/path'], 'strips'), key=lambda strips: len(strips[0]))
    assert np.array(longest[0]).tolist() == [[5, 2, 1.5], [6, 2, 1.5]]
    png = bytes(column(found['/depth'], 'blob')[0][0])
    units = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert units.dtype == np.uint16
    assert units[80, 100] == round(float(depth[80, 100]) * 100)
    assert units[10, 100] == 0  # above the horizon there is no ground


def test_without_pose_and_truth(tmp_path):
    path = tmp_path / 'a.rrd'
    with Recording(path, 'test') as stream:
        stream.add(1, IMAGE, CAMERA, np.full((96, 320), 4.0, np.float32))
    found = chunks_of(path)
    assert '/truth' not in found
    assert '/world/path' not in found
    points = np.array(column(found['/world/camera/cloud'], 'positions')[0])
    assert (points[:, 2] == 4.0).all()


def test_no_points_for_outlines_and_for_what_has_no_depth(tmp_path):
    depth = np.full((96, 320), 10.0, np.float32)
    depth[30:60, 100:200] = 4.0
    depth[:10] = np.inf
    depth[90:] = np.nan
    points, colours = recording._cloud(IMAGE, CAMERA, depth, 80.0)
    assert set(np.unique(points[:, 2])) == {4.0, 10.0}
    assert (colours == (200, 40, 10)).all()
    u = points[:, 0] / points[:, 2] * CAMERA.fx + CAMERA.cx
    v = points[:, 1] / points[:, 2] * CAMERA.fy + CAMERA.cy
    assert v.min() > 10
    assert v.max() < 89
    left = np.abs(u - 99.5) < 0.9  # the two columns on the left side of the box
    assert not (left & (v > 31) & (v < 58)).any()


def test_points_are_few_whatever_the_size():
    camera = CameraModel(1920, 1080, 1000.0, 1000.0, 960.0, 540.0)
    points, _ = recording._cloud(np.zeros((1080, 1920, 3), np.uint8), camera,
                                 np.full((1080, 1920), 5.0, np.float32), 80.0)
    assert 0.7 * recording.MAX_POINTS < len(points) < 1.3 * recording.MAX_POINTS


@pytest.mark.parametrize(('rotation', 'up'), [
    (np.eye(3), 'RIGHT_HAND_Y_DOWN'),
    (np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), 'RIGHT_HAND_Z_UP'),
    (np.diag([1, -1, -1]), 'RIGHT_HAND_Y_UP')])
def test_which_way_is_up(rotation, up):
    pose = np.eye(4)
    pose[:3, :3] = rotation
    assert recording._up_axis(pose) == up


def test_an_error_leaves_nothing_and_spares_what_was_there(tmp_path):
    path = tmp_path / 'a.rrd'
    path.write_bytes(b'older')
    with pytest.raises(ConfigError, match='does not fit'), Recording(path, 'test') as stream:
        stream.add(1, IMAGE, CAMERA, np.full((9, 9), 4.0, np.float32))
    assert [file.name for file in tmp_path.iterdir()] == ['a.rrd']
    assert path.read_bytes() == b'older'


def test_without_rerun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    with pytest.raises(ConfigError, match='pip install rerun-sdk'):
        Recording(tmp_path / 'a.rrd', 'test')
