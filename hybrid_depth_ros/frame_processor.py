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
"""From an image message to published depth: everything that the inference thread does."""
from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
import logging
import time
from typing import Any, Protocol

from std_msgs.msg import Header

from hybrid_depth.camera import CameraModel
from hybrid_depth.cloud import CloudPacker
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import BadFrame, HybridDepthError
from hybrid_depth.types import DepthResult, Evidence, Frame
from hybrid_depth_ros.bev_outputs import BevState
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.debug_topics import DebugTopics, FrameTimes
from hybrid_depth_ros.diagnostics import FrameStats, ThrottledWarnings
from hybrid_depth_ros.encodings import decode_image, Fallback, image_size
from hybrid_depth_ros.findings import Findings
from hybrid_depth_ros.outputs import OutputPublishers, Product
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.pose_source import PoseSource

_LOG = logging.getLogger(__name__)
Job = Any  # a sensor_msgs/Image or CompressedImage, or a CameraModel to get ready for


class Pipeline(Protocol):
    """What is needed of hybrid_depth.pipeline.DepthPipeline."""

    def run(self, frame: Frame, extras: Collection[str]) -> DepthResult:
        """Return the depth of ``frame``, and those of types.EXTRAS that are asked for."""

    def warm_up(self, camera: CameraModel, is_hurried: Callable[[], bool]) -> None:
        """Get ready for frames of ``camera``, as far as a frame has not come meanwhile."""

    def configure(self, config: PipelineConfig) -> None:
        """Use ``config`` from the next frame on."""


@dataclass
class FrameProcessor:
    """Turns jobs into published messages; one at a time, on one thread."""

    pipeline: Pipeline
    camera: CameraSource
    poses: PoseSource
    outputs: OutputPublishers
    debug: DebugTopics
    stats: FrameStats
    findings: Findings
    settings: Callable[[], Settings]
    now_ns: Callable[[], int]
    fallback: Fallback | None = None  # for encodings outside the table
    bev: BevState = field(default_factory=BevState)  # may be that of several cameras

    def __post_init__(self) -> None:
        self._applied: Settings | None = None
        self._last_start: float | None = None  # of the frame before
        self._packer = CloudPacker()
        self._warnings = ThrottledWarnings(_LOG)

    def process(self, job: Job) -> None:
        """Do ``job``. Raises whatever goes wrong; ``failed`` deals with it."""
        settings = self.settings()
        self._apply(settings)
        if isinstance(job, CameraModel):
            start = time.monotonic()
            self.pipeline.warm_up(job, self.stats.is_image_waiting)
            if not self.stats.is_image_waiting():
                job.rays()  # of a distorted camera they take a second; kept from here on
            _LOG.info('ready for %dx%d after %.2f s', job.width, job.height,
                      time.monotonic() - start)
        else:
            self._process_image(job, settings)

    def replaced(self, job: Job) -> None:
        """Count a job that gave way to a newer one."""
        if not isinstance(job, CameraModel):
            self.stats.dropped('replaced')

    def failed(self, job: Job, error: Exception) -> None:
        """Count and report what ``process`` raised for ``job``."""
        if isinstance(error, BadFrame):
            reason, trace = error.reason, None
        elif isinstance(error, HybridDepthError):
            reason, trace = 'model_error', None
        else:
            reason, trace = 'model_error', error
        if not isinstance(job, CameraModel):
            self.stats.dropped(reason)
        self._warnings.warn(reason, str(error) or type(error).__name__, trace)

    def _apply(self, settings: Settings) -> None:
        if settings is self._applied:
            return
        self.pipeline.configure(settings.pipeline)
        self._packer = CloudPacker(settings['cloud.stride'],
                                   max_range_m=settings['cloud.max_range_m'],
                                   max_relative_sigma=settings['cloud.max_relative_sigma'],
                                   remove_edges=settings['cloud.remove_edges'],
                                   remove_evidence=_unwanted(settings))
        self._applied = settings

    def _process_image(self, image: Any, settings: Settings) -> None:
        start = time.monotonic()
        wanted = self.outputs.wanted()
        if not wanted:
            self.stats.dropped('no_subscriber')
            return
        cycle_ms = None if self._last_start is None else 1e3 * (start - self._last_start)
        self._last_start = start
        header = self._header(image)
        stamp_ns = stamp_to_ns(header.stamp)
        source, camera = self.camera.for_image(image_size(image), header.frame_id, stamp_ns)
        image_rgb = decode_image(image, self.fallback)
        pose = self.poses.camera_pose(stamp_ns, header.frame_id)
        extras = frozenset().union(*(row.extras(self._packer) for row in wanted))
        result = self.pipeline.run(Frame(image_rgb, stamp_ns, header.frame_id, camera,
                                         pose.odom_T_camera, pose.epoch, pose.down_camera), extras)
        inferred = time.monotonic()
        self.findings.add(result)
        self.outputs.publish(wanted, header, Product(
            result, source, self._packer, settings, pose, self.bev))
        end = time.monotonic()
        times = FrameTimes(1e3 * (end - start), (self.now_ns() - stamp_ns) / 1e6, cycle_ms)
        self.stats.processed(times.latency, times.processing,
                             {**result.timings_ms, 'publish': 1e3 * (end - inferred)}, result.mode)
        self.debug.tell(times)

    def _header(self, image: Any) -> Header:
        """Return the header of all outputs: that of the image, bit for bit."""
        if image.header.frame_id:
            return image.header
        frame_id = self.settings()['camera_frame']
        if not frame_id:
            raise BadFrame('no_frame_id', 'the image has an empty frame_id, so nobody could place '
                           "its depth; set it in the camera driver, or parameter 'camera_frame'")
        return Header(stamp=image.header.stamp, frame_id=frame_id)


def _unwanted(settings: Settings) -> frozenset[Evidence]:
    """Return the evidence that the cloud leaves out."""
    if settings['cloud.only_matched']:
        return frozenset(Evidence) - {Evidence.MATCHED}
    return frozenset({Evidence.MOVING} if settings['cloud.remove_moving'] else ())
