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
"""The recorder: what it finds wrong in outputs, and how it accounts for every frame."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from hybrid_depth.camera import CameraModel
from hybrid_depth.cloud import CloudPacker
from hybrid_depth.types import DepthResult
from hybrid_depth_ros import accounting, conventions, recorder
from hybrid_depth_ros.drive_messages import camera_info_message, image_message, time_message

SOURCE = CameraModel(64, 48, 60.0, 62.0, 31.0, 24.5)
STAMP_NS = 7_000_000_123


def float_message(values: np.ndarray) -> Image:
    height, width = values.shape
    message = image_message(np.zeros((1, 1, 3), np.uint8), STAMP_NS)
    message.height, message.width, message.step = height, width, 4 * width
    message.encoding = '32FC1'
    message.data = values.astype('<f4').tobytes()
    return message


def outputs(camera: CameraModel = SOURCE, stride: int = 1) -> dict:
    """Return the right outputs of one frame: a slope with a hole and a sky."""
    v, u = np.mgrid[:camera.height, :camera.width]
    depth_m = (5 + 0.1 * v + 0.05 * u).astype(np.float32)
    depth_m[3, 4] = np.nan
    depth_m[:8, :] = np.inf
    sigma_m = np.where(np.isfinite(depth_m), 0.1 * depth_m, np.nan).astype(np.float32)
    image_rgb = np.full((camera.height, camera.width, 3), 80, np.uint8)
    result = DepthResult(depth_m, sigma_m, np.zeros(depth_m.shape, bool), image_rgb, camera,
                         STAMP_NS, 'camera_optical_frame', 'single_frame')
    packed = CloudPacker(stride).pack(result)
    cloud = PointCloud2(
        height=packed.height, width=packed.width, point_step=packed.point_step,
        row_step=packed.row_step, is_dense=False, is_bigendian=False, data=packed.data,
        fields=[PointField(name=name, offset=offset, datatype=kind, count=1)
                for name, offset, kind in packed.fields])
    cloud.header = camera_info_message(camera, STAMP_NS).header
    return {'depth/image': float_message(depth_m), 'depth/sigma': float_message(sigma_m),
            'depth/camera_info': camera_info_message(camera, STAMP_NS), 'points': cloud}


def source_info() -> CameraInfo:
    return camera_info_message(SOURCE, STAMP_NS)


@pytest.mark.parametrize('camera', [SOURCE, SOURCE.resized(32, 24), SOURCE.resized(96, 40)])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_right_outputs_pass(camera, stride):
    assert recorder.check_frame(outputs(camera, stride), source_info()) == []


def change_pixel(message, value):
    values = np.array(conventions.float_image(message))
    values[20, 21] = value
    message.data = values.tobytes()


def move_points(message):
    points = np.array(np.frombuffer(message.data, '<f4').reshape(-1, 4))
    points[:, 0] += 0.05
    message.data = points.tobytes()


def empty_points(message):
    points = np.array(np.frombuffer(message.data, '<f4').reshape(-1, 4))
    points[:, :3] = np.nan
    message.data = points.tobytes()


WRONG = {
    'encoding': ('depth/image', lambda m: setattr(m, 'encoding', '16UC1'), 'encoding is 16UC1'),
    'step': ('depth/image', lambda m: setattr(m, 'step', 3), 'step 3'),
    'bytes': ('depth/sigma', lambda m: setattr(m, 'data', m.data[:-4]), 'bytes for 64x48'),
    'frame': ('points', lambda m: setattr(m.header, 'frame_id', 'map'), "frame_id is 'map'"),
    'zero': ('depth/image', lambda m: change_pixel(m, 0.0), 'depths of 0 or less'),
    'hole in sigma': ('depth/sigma', lambda m: change_pixel(m, np.nan), 'not finite exactly'),
    'negative sigma': ('depth/sigma', lambda m: change_pixel(m, -1.0), 'not positive'),
    'hole in depth': ('depth/image', lambda m: change_pixel(m, np.nan), 'depth/sigma'),
    'K': ('depth/camera_info', lambda m: setattr(m, 'k', [1.1 * k for k in m.k]), 'K is not'),
    'P': ('depth/camera_info', lambda m: setattr(m, 'p', [0.0] * 12), 'P does not repeat K'),
    'info size': ('depth/camera_info', lambda m: setattr(m, 'width', 63), '63x48 beside'),
    'dense': ('points', lambda m: setattr(m, 'is_dense', True), 'is_dense'),
    'fields': ('points', lambda m: setattr(m, 'fields', m.fields[:3]), 'expected x, y, z, rgb'),
    'row step': ('points', lambda m: setattr(m, 'row_step', 1), 'row_step'),
    'shifted': ('points', move_points, '0.050 m from where'),
    'empty': ('points', empty_points, 'have no point'),
}


@pytest.mark.parametrize('name', WRONG)
def test_wrong_outputs_are_named(name):
    topic, spoil, expected = WRONG[name]
    messages = outputs()
    spoil(messages[topic])
    found = recorder.check_frame(messages, source_info())
    assert any(expected in text for text in found), found


def test_half_a_point_and_a_point_without_depth():
    messages = outputs()
    points = np.array(np.frombuffer(messages['points'].data, '<f4').reshape(48, 64, 4))
    points[14, 14, 0] = np.nan
    messages['points'].data = points.tobytes()
    assert recorder.check_frame(messages, source_info()) == ['points: half of a point is NaN']
    points[14, 14, 0] = 1.0
    points[0, 0, :3] = (1.0, 1.0, 30.0)  # the sky there is +Inf
    messages['points'].data = points.tobytes()
    assert recorder.check_frame(messages, source_info()) == [
        'points: a point where the depth image has no depth']


def test_no_depth_at_all_is_wrong():
    assert conventions.check_depth(np.full((4, 4), np.nan, np.float32)) == [
        'depth/image: not one pixel has a depth']


def test_accounting_of_frames():
    check = accounting.accounting_problems
    assert check(10, 10, 10, {}) == []
    assert check(10, 8, 10, {'replaced': 2}) == ['dropped by the node: 2 replaced']
    assert check(10, 8, 9, {}) == ['lost: 2 of 10 frames neither came out nor were counted as '
                                   'dropped (1 of them never reached the node)']
    assert 'lost: 1' in check(10, 8, 10, {'bad_image': 1})[1]
    assert check(10, 10, 10, {'replaced': 1})[1].startswith('counted twice')


def fake_recorder(stamps: list[int], status: dict) -> SimpleNamespace:
    records = {stamp: recorder.Record(dict.fromkeys(recorder.OUTPUTS), stamp + 20_000_000, True)
               for stamp in stamps}
    return SimpleNamespace(records=records, status=status, stages=[], wrong=[])


STATUS = {'frames_received': '4', 'frames_processed': '4', 'model': 'tiny', 'backend': 'some'}


def test_summary_of_a_good_run():
    stamps = [10**9 + i * 10**8 for i in range(4)]
    report = {'frames': [{'stamp_ns': stamp} for stamp in stamps]}
    summary = recorder.summarise(fake_recorder(stamps, STATUS), report, None)
    assert set(summary) == {
        'frames_published', 'frames_processed', 'drops', 'latency_ms', 'rate_hz', 'accuracy',
        'model', 'backend', 'posed_share', 'stages_ms', 'versions', 'problems'}
    assert (summary['frames_published'], summary['frames_processed']) == (4, 4)
    assert summary['latency_ms'] == {'p50': 20.0, 'p95': 20.0, 'p99': 20.0}
    assert summary['rate_hz'] == pytest.approx(10.0)
    assert summary['stages_ms'] == {}
    assert summary['posed_share'] is None  # the status of this test says nothing of it
    assert summary['problems'] == []
    text = accounting.table(summary)
    assert 'PROBLEM' not in text
    assert 'no ground truth' in text


def test_summary_names_what_is_missing_and_what_nobody_published():
    stamps = [10**9 + i * 10**8 for i in range(4)]
    fake = fake_recorder([*stamps[:3], 5], STATUS)
    del fake.records[stamps[0]].messages['points']
    fake.records[stamps[0]].is_checked = False
    fake.records[stamps[1]].is_checked = False
    summary = recorder.summarise(fake, {'frames': [{'stamp_ns': s} for s in stamps]}, None)
    assert summary['frames_processed'] == 3
    problems = '; '.join(summary['problems'])
    assert 'stamp 5 was never published' in problems
    assert 'a frame without points' in problems
    assert 'a frame without its camera_info' in problems
    assert 'lost: 1 of 4' in problems
    assert accounting.table(summary).count('PROBLEM') == 4


def test_nothing_came_out():
    summary = recorder.summarise(fake_recorder([], {}), {'frames': [{'stamp_ns': 1}]}, None)
    assert summary['latency_ms'] == {'p50': None, 'p95': None, 'p99': None}
    assert summary['rate_hz'] is None
    assert 'the node published no diagnostics' in summary['problems']
    assert 'latency p50 / p95 / p99' in accounting.table(summary)


def test_settled_when_every_frame_is_accounted_for_and_here():
    fake = fake_recorder([1, 2, 3], {'frames_processed': '3', 'drops.replaced': '1'})
    assert recorder.is_settled(fake, {'frames_published': 4})
    assert not recorder.is_settled(fake, {'frames_published': 5})
    fake.status['frames_processed'] = '4'  # one is still on its way to us
    assert not recorder.is_settled(fake, {'frames_published': 5})


def test_drops_are_read_from_diagnostics():
    assert recorder.drops_of({'drops.replaced': '2', 'drops.bad_image': '0', 'mode': 'x'}) == {
        'replaced': 2}


def test_time_message_round_trip():
    stamp = time_message(STAMP_NS)
    assert (stamp.sec, stamp.nanosec) == (7, 123)


@pytest.mark.parametrize(('text', 'share'), [('0.97', 0.97), ('1.00', 1.0), ('none yet', None)])
def test_share_of_frames_with_odometry(text: str, share: float | None) -> None:
    assert recorder.posed_share({'posed_share': text}) == share


def test_medians_of_the_stages_that_the_node_reports():
    statuses = [{'stage_ms.inference': text, 'drops.replaced': '1'} for text in ('9', '20', '30')]
    stages = [recorder.stages_of(status) for status in statuses]
    assert recorder.stage_medians([*stages, {'publish': 4.0}]) == {'inference': 20.0,
                                                                   'publish': 4.0}
    assert recorder.stages_of({'stage': '3'}) == {}
