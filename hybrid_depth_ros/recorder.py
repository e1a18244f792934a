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
Record what the depth node publishes, check it from the outside, and sum it up.

Knows the node by its topics alone. Every output is matched by its stamp with the frame that the
player published, so that no frame can go missing unnoticed; depth is compared with the drive's own
truth where it has some. Writes summary.json, montage.png and demo.rrd.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import json
from pathlib import Path
import signal
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from hybrid_depth.drives import Drive, DriveFrame, open_drive
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.summary import latency_percentiles, versions
from hybrid_depth_ros import conventions
from hybrid_depth_ros.accounting import (
    accounting_problems,
    count_texts,
    rate_hz,
    table,
)
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.demo_report import Pictured, write_pictures

OUTPUTS = {'depth/image': Image, 'depth/camera_info': CameraInfo, 'depth/sigma': Image,
           'points': PointCloud2}
WRITTEN = ('montage.png', 'summary.json', 'demo.rrd')
PICTURED_FRAMES = 24  # at most so many clouds and sigmas are kept in memory
SILENCE_S = 3.0  # nothing more is coming when nothing came for so long
PROGRESS_EVERY = 25  # frames


@dataclass
class Record:
    """What came out for one stamp."""

    messages: dict[str, Any] = field(default_factory=dict)  # topic -> message, until checked
    depth_arrival_ns: int = 0
    is_checked: bool = False  # complete, compared, and its depth kept


class Recorder(Node):
    """Subscriptions to all that the node publishes; checks a frame once it is complete."""

    def __init__(self, node_name: str, frames: int, scratch: Path) -> None:
        super().__init__('depth_recorder')
        self.records: dict[int, Record] = {}
        self.sources: dict[int, CameraInfo] = {}  # camera_info of the player by stamp
        self.wrong: list[str] = []
        self.pictured: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # stamp -> sigma, points
        self.status: dict[str, str] = {}
        self.stages: list[dict[str, float]] = []  # milliseconds by stage, one for each status
        self.last_message_s = time.monotonic()
        self._scratch = scratch
        self._picture_every = max(1, -(-frames // PICTURED_FRAMES))
        self._node_name = node_name
        reliable = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        self._outputs = [
            self.create_subscription(kind, f'{node_name}/{topic}', self._taker(topic), reliable)
            for topic, kind in OUTPUTS.items()]
        self._outputs.append(self.create_subscription(
            DiagnosticArray, '/diagnostics', self._take_diagnostics, reliable))
        self._wait = self.create_timer(0.1, self._join_camera)

    def _join_camera(self) -> None:
        """
        Subscribe to camera_info once every output has a publisher.

        The player waits for this subscription, so it starts only when nothing can be missed.
        """
        if all(self.count_publishers(output.topic_name) for output in self._outputs):
            self.create_subscription(CameraInfo, 'camera_info', self._take_source, 20)
            self._wait.cancel()

    def _take_source(self, message: CameraInfo) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        self.sources[stamp_ns] = message
        self._check_if_complete(stamp_ns)  # a fast node may be here before it

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            if 'frames_processed' in values and self._node_name in status.name:
                self.status = values
                stages = stages_of(values)
                if stages:
                    self.stages.append(stages)

    def _taker(self, topic: str):
        def take(message: Any) -> None:
            arrival_ns = time.time_ns()
            self.last_message_s = time.monotonic()
            stamp_ns = stamp_to_ns(message.header.stamp)
            record = self.records.setdefault(stamp_ns, Record())
            if topic in record.messages:
                self.wrong.append(f'{topic}: the same stamp came twice')
            record.messages[topic] = message
            if topic == 'depth/image':
                record.depth_arrival_ns = arrival_ns
            self._check_if_complete(stamp_ns)
        return take

    def _check_if_complete(self, stamp_ns: int) -> None:
        """Check a frame that is all here, keep its depth on disk, let go of its messages."""
        source, record = self.sources.get(stamp_ns), self.records.get(stamp_ns)
        if source is None or record is None or len(record.messages) < len(OUTPUTS) \
                or record.is_checked:
            return
        messages = dict(record.messages)
        record.messages = dict.fromkeys(messages)
        record.is_checked = True
        self.wrong += check_frame(messages, source)
        depth_m = conventions.float_image(messages['depth/image'])
        np.save(self._scratch / f'{stamp_ns}.npy', depth_m)
        done = sum(1 for other in self.records.values() if other.is_checked)
        if (done - 1) % self._picture_every == 0:
            self.pictured[stamp_ns] = (conventions.float_image(messages['depth/sigma']),
                                       conventions.cloud_points(messages['points']))
        if done % PROGRESS_EVERY == 0:
            print(f'[demo] {done} frames recorded', flush=True)

    def depth_m(self, stamp_ns: int) -> np.ndarray:
        """Return the depth image of a complete frame, (H, W) float32."""
        return np.load(self._scratch / f'{stamp_ns}.npy', allow_pickle=False)


def check_frame(messages: dict[str, Any], source: CameraInfo) -> list[str]:
    """Check the four outputs of one frame against each other and the player's camera_info."""
    wrong = [text for topic, message in messages.items()
             for text in conventions.check_header(message, topic, source.header.frame_id)]
    depth, sigma = messages['depth/image'], messages['depth/sigma']
    info = messages['depth/camera_info']
    layout = [*conventions.check_layout(depth, 'depth/image'),
              *conventions.check_layout(sigma, 'depth/sigma')]
    if layout:
        return wrong + layout
    depth_m = conventions.float_image(depth)
    return [*wrong, *conventions.check_depth(depth_m),
            *conventions.check_sigma(conventions.float_image(sigma), depth_m),
            *conventions.check_camera_info(info, source, depth),
            *conventions.check_cloud(messages['points'], depth_m, info)]


def record_until_done(recorder: Recorder, report_path: Path, stop: threading.Event) -> dict | None:
    """
    Spin until the player has written its report and nothing more can come; return the report.

    None when told to stop before.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(recorder)
    report = None
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
        if report is None and report_path.is_file():
            report = json.loads(report_path.read_text())
            recorder.last_message_s = time.monotonic()
        if report is not None:
            silent_s = time.monotonic() - recorder.last_message_s
            if silent_s > SILENCE_S or (is_settled(recorder, report) and silent_s > 0.5):
                break
    executor.remove_node(recorder)
    return None if stop.is_set() else report


def is_settled(recorder: Recorder, report: dict) -> bool:
    """Return whether the node's own count covers every published frame, and all of it is here."""
    processed = int(recorder.status.get('frames_processed', 0))
    complete = sum(1 for record in recorder.records.values() if record.is_checked)
    return (processed + sum(drops_of(recorder.status).values()) >= report['frames_published']
            and complete >= processed)


def drops_of(status: dict[str, str]) -> dict[str, int]:
    """Return reason -> count from the node's diagnostics."""
    prefix = 'drops.'
    return {key[len(prefix):]: int(value) for key, value in status.items()
            if key.startswith(prefix) and int(value)}


def stages_of(status: dict[str, str]) -> dict[str, float]:
    """Return stage -> milliseconds of the node's latest frame, empty before the first."""
    prefix = 'stage_ms.'
    return {key[len(prefix):]: float(value) for key, value in status.items()
            if key.startswith(prefix)}


def stage_medians(stages: list[dict[str, float]]) -> dict[str, float]:
    """Return stage -> median milliseconds over the statuses (one a second) that have it."""
    names = dict.fromkeys(name for row in stages for name in row)
    return {name: round(statistics.median(row[name] for row in stages if name in row), 2)
            for name in names}


def posed_share(status: dict[str, str]) -> float | None:
    """Return the share of frames that odometry took part in, None where nothing came out."""
    text = status.get('posed_share', '')
    return float(text) if text.replace('.', '').isdigit() else None


def summarise(recorder: Recorder, report: dict, accuracy: dict | None) -> dict[str, Any]:
    """Return summary.json."""
    published = {frame['stamp_ns'] for frame in report['frames']}
    came = sorted(stamp for stamp, record in recorder.records.items()
                  if stamp in published and record.depth_arrival_ns)
    arrivals = sorted(recorder.records[stamp].depth_arrival_ns for stamp in came)
    latencies = [(recorder.records[stamp].depth_arrival_ns - stamp) * 1e-6 for stamp in came]
    drops = drops_of(recorder.status)
    problems = list(recorder.wrong)
    problems += [f'stamp {stamp} was never published' for stamp in recorder.records
                 if stamp not in published]
    problems += ['incomplete: a frame without ' + (', '.join(
        sorted(set(OUTPUTS) - set(recorder.records[stamp].messages))) or 'its camera_info')
        for stamp in came if not recorder.records[stamp].is_checked]
    problems = count_texts(problems) + accounting_problems(
        len(published), len(came), int(recorder.status.get('frames_received', 0)), drops)
    if not recorder.status:
        problems.append('the node published no diagnostics')
    return {
        'frames_published': len(published), 'frames_processed': len(came), 'drops': drops,
        'latency_ms': latency_percentiles(latencies), 'rate_hz': rate_hz(arrivals),
        'accuracy': accuracy, 'model': recorder.status.get('model', 'unknown'),
        'backend': recorder.status.get('backend', 'unknown'),
        'posed_share': posed_share(recorder.status),
        'stages_ms': stage_medians(recorder.stages), 'versions': versions(),
        'problems': problems}


def read_before(drive: Drive, count: int,
                stop: threading.Event) -> Callable[[int], DriveFrame]:
    """
    Return what gives a frame of the drive by its index.

    A drive that this project renders is rendered now, while the player does the same, and not
    after the recording; one that lies on disk is read when wanted.
    """
    if drive.source is not None:
        return drive.frame
    frames: list[DriveFrame] = []
    while len(frames) < count and not stop.is_set():
        frames.append(drive.frame(len(frames)))
        if len(frames) % PROGRESS_EVERY == 0:
            print(f'[demo] {len(frames)} of {count} frames rendered', flush=True)
    return frames.__getitem__


def recorded_frames(recorder: Recorder, report: dict,
                    frame_at: Callable[[int], DriveFrame]) -> Iterator[Pictured]:
    """Pair every complete frame with the drive's, in the order in which they were played."""
    for entry in report['frames']:
        stamp_ns = entry['stamp_ns']
        record = recorder.records.get(stamp_ns)
        if record is None or not record.is_checked:
            continue
        sigma_m, points = recorder.pictured.get(stamp_ns, (None, None))
        yield Pictured(frame_at(entry['index']), recorder.depth_m(stamp_ns), sigma_m, points)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='recorder', description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--drive', default='synthetic', help='the drive that the player plays')
    parser.add_argument('--player-report', type=Path, required=True,
                        help='JSON file that the player writes at its end')
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='folder to write')
    parser.add_argument('--limit', type=int, default=0, help="the player's --limit")
    parser.add_argument('--node', default='hybrid_depth', help='name of the depth node')
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace, stop: threading.Event) -> int:
    """Record, sum up, write. Returns the exit status."""
    drive = open_drive(arguments.drive)
    arguments.out.mkdir(parents=True, exist_ok=True)
    # the player waits for us, so a report that is there already is of another run
    arguments.player_report.unlink(missing_ok=True)
    count = min(len(drive), arguments.limit or len(drive))
    frame_at = read_before(drive, count, stop)
    with tempfile.TemporaryDirectory(prefix='hybrid_depth_') as scratch:
        recorder = Recorder(arguments.node, count, Path(scratch))
        try:
            report = record_until_done(recorder, arguments.player_report, stop)
        finally:
            recorder.destroy_node()
        if report is None:
            return 0
        print('[demo] comparing with the truth, drawing', flush=True)
        accuracy = write_pictures(recorded_frames(recorder, report, frame_at), arguments.out,
                                  drive.name)
        summary = summarise(recorder, report, accuracy)
    path = arguments.out / 'summary.json'
    path.write_text(json.dumps(summary, indent=2) + '\n')
    written = [name for name in WRITTEN if (arguments.out / name).is_file()]
    print(table(summary), f'  written to {arguments.out}/: {", ".join(written)}', sep='\n',
          flush=True)
    return 1 if summary['problems'] else 0


def main(argv: list[str] | None = None) -> int:
    """Record; 0 when all came out right, 1 when anything was lost or wrong, 2 when it cannot."""
    argv = sys.argv if argv is None else ['recorder', *argv]
    arguments = parse_arguments(remove_ros_args(argv)[1:])
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return run(arguments, stop)
    except HybridDepthError as error:
        print(f'recorder: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
