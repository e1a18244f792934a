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
"""Measure anything that predicts depth on the same frames of a drive with the same code."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from hybrid_depth.drives import Drive, open_drive
from hybrid_depth.errors import DriveError
from hybrid_depth.metrics import depth_metrics
from hybrid_depth.summary import AccuracyTable, machine
from hybrid_depth_training.evaluation.accuracy_text import markdown
from hybrid_depth_training.evaluation.focal import focal_ratios
from hybrid_depth_training.evaluation.plane_sweep import ROOM, STREET, SweepConfig
from hybrid_depth_training.evaluation.predictors import (
    Entry,
    MAX_M,
    model_entries,
    Predict,
    stateless,
    sweep_entry,
)
from hybrid_depth_training.evaluation.priors import flat_ground, position_prior
from hybrid_depth_training.evaluation.splits import MOVING, split_frame, Splits, STATIC, truth_mask

RANGES_M = ((0, 10), (10, 20), (20, 40), (40, 80))
_CONTEXT = 10  # frames before the first that is measured, for those that remember


@dataclass(frozen=True)
class Kind:
    """What is known beforehand about a kind of drive."""

    sweep: SweepConfig
    has_flat_ground: bool


KINDS = {'street': Kind(STREET, True), 'room': Kind(ROOM, False)}


def evaluate(drive: str, models: Sequence[str], prior_from: Path | None = None,
             camera_height_m: float = 1.65, json_path: Path | None = None,
             markdown_path: Path | None = None, kind: str = 'street',
             hold_out: float = 1.0) -> list[dict[str, Any]]:
    """
    Measure the priors, the plane sweep and ``models`` on ``drive``; one row each.

    ``kind`` is a row of KINDS. The frames are the last ``hold_out`` share of those with truth, as
    training holds them out. ``prior_from`` is the training configuration whose real frames of the
    group ``kind`` make the position-only prior; None leaves that row out, as a drive without
    poses does with the sweep. Writes JSON and Markdown where asked to. Raises DriveError where no
    frame has truth.
    """
    opened = open_drive(drive)
    frames = held_out([index for index in range(len(opened))
                       if opened.frame(index).depth_m is not None], hold_out)
    if not frames:
        raise DriveError(f'{drive} has no ground-truth depth to measure against')
    splits = {index: split_frame(opened, frames, place, MAX_M)
              for place, index in enumerate(frames)}
    entries = _priors(camera_height_m if KINDS[kind].has_flat_ground else 0.0, prior_from, kind)
    if opened.frame(0).world_T_camera is not None:
        entries.append(sweep_entry(KINDS[kind].sweep))
    for model in models:
        entries += model_entries(model)
    rows = []
    for entry in entries:
        with entry.start() as predict:
            new = measure(entry.names, predict, opened, frames, splits, entry.is_sequence)
        if entry.is_model:
            new[0]['focal'] = focal_ratios(entry, opened, frames)
        for row in new:
            rows.append({**row, 'machine': machine(), 'load_average': os.getloadavg()[0]})
            print(f'{opened.name:28s} {row["name"]:28s} AbsRel {row["abs_rel"]:.3f}  RMSE '
                  f'{row["rmse"]:.2f} m  d1 {row["d1"]:.3f}  coverage {row["coverage"]:.2f}',
                  flush=True)
    write(rows, json_path, markdown_path)
    return rows


def write(rows: Sequence[dict[str, Any]], json_path: Path | None,
          markdown_path: Path | None) -> None:
    """Write ``rows`` as JSON and as the text of docs/accuracy.md, where a path is given."""
    for path, text in ((json_path, json.dumps(rows, indent=1, allow_nan=False) + '\n'),
                       (markdown_path, markdown(rows))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def held_out(frames: list[int], share: float) -> list[int]:
    """Return the last ``share`` of ``frames``: those that training with ``hold_out`` never saw."""
    return frames[len(frames) - round(share * len(frames)):]


def measure(names: Sequence[str], predict: Predict, drive: Drive, frames: Sequence[int],
            splits: Mapping[int, Splits] | None = None,
            is_sequence: bool = False) -> list[dict[str, Any]]:
    """
    Return the row of every one of ``names``, which ``predict`` fills, on ``frames`` of ``drive``.

    The main figures are averages of per-image ones, metric and median-scaled; those of parts of
    the image (ranges of depth, ``splits``) are of all pixels of all frames together. With
    ``is_sequence`` the frames between, and ten before, are shown too.
    """
    tallies = [_Tally() for _ in names]
    shown = range(max(0, frames[0] - _CONTEXT), frames[-1] + 1) if is_sequence else frames
    wanted = set(frames)
    for index in shown:
        frame = drive.frame(index)
        start = time.perf_counter()
        estimates = predict(frame)
        seconds = time.perf_counter() - start
        if index in wanted:
            for tally, (depth_m, sigma_m) in zip(tallies, estimates, strict=True):
                tally.add(depth_m, sigma_m, frame.depth_m, seconds, splits and splits[index])
    return [{'name': name, 'drive': drive.name, **tally.row()}
            for name, tally in zip(names, tallies, strict=True)]


@dataclass
class _Tally:
    """What is kept of the measured frames."""

    table: AccuracyTable = field(default_factory=lambda: AccuracyTable(MAX_M))
    ratios: list[float] = field(default_factory=list)  # median of truth / prediction
    within: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    pixels: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    def add(self, depth_m: np.ndarray, sigma_m: np.ndarray | None, truth_m: np.ndarray,
            seconds: float, splits: Splits | None) -> None:
        self.table.add(depth_m, truth_m)
        self.seconds.append(seconds)
        mask = truth_mask(truth_m, MAX_M)
        depth, truth = depth_m[mask], truth_m[mask]
        self.coverage.append(float(np.mean(~np.isnan(depth))) if depth.size else np.nan)
        is_finite = np.isfinite(depth) & (depth > 0)
        self.ratios.append(float(np.median(truth[is_finite] / depth[is_finite]))
                           if is_finite.any() else np.nan)
        if sigma_m is not None:
            sigma = sigma_m[mask]
            both = is_finite & np.isfinite(sigma)
            error = np.abs(depth[both] - truth[both])
            self.within.append(float(np.mean(error <= sigma[both])) if both.any() else np.nan)
        motion = np.full(depth.shape, 255, np.uint8) if splits is None else splits.motion
        near = np.full(depth.shape, 255, np.uint8)
        if splits is not None and splits.is_near_epipole is not None:
            near = splits.is_near_epipole.astype(np.uint8)
        self.pixels.append((depth, truth, motion, near))

    def row(self) -> dict[str, Any]:
        accuracy = self.table.result()
        depth, truth, motion, near = map(np.concatenate, zip(*self.pixels, strict=True))
        ratios = np.array(self.ratios)
        known = ratios[np.isfinite(ratios)]

        def part(chosen: np.ndarray) -> dict[str, float | None]:
            figures = depth_metrics(depth[chosen], truth[chosen], max_m=MAX_M)
            return {**{key: _number(figures[key]) for key in ('abs_rel', 'rmse', 'd1',
                                                              'coverage')},
                    'share': float(np.mean(chosen))}
        return {
            'frames': len(self.seconds), **accuracy['metric'],
            'scale_median': float(np.median(known)), 'scale_std': float(np.std(known)),
            'temporal_flicker': float(np.median(np.abs(np.diff(np.log(known)))))
            if len(known) > 1 else None,
            'coverage_1sigma': float(np.nanmean(self.within)) if self.within else None,
            'coverage': float(np.nanmean(self.coverage)),
            'seconds_per_frame': float(np.median(self.seconds)),
            'median_scaled': accuracy['median_scaled'],
            'bins': [{'range_m': [low, high], **part((truth > low) & (truth <= high))}
                     for low, high in RANGES_M],
            'by_motion': {'static': part(motion == STATIC), 'moving': part(motion == MOVING)},
            'by_epipole': {'near': part(near == 1), 'far': part(near == 0)}}


def _number(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def _priors(camera_height_m: float, prior_from: Path | None, group: str) -> list[Entry]:
    entries = []
    if camera_height_m:
        entries.append(Entry((f'flat ground ({camera_height_m} m)',), lambda: stateless(
            lambda frame: (flat_ground(frame.camera, camera_height_m, MAX_M), None))))
    if prior_from is not None:
        prior = position_prior(prior_from, group)
        entries.append(Entry(('position only',), lambda: stateless(
            lambda frame: (prior.depth(frame.camera), None))))
    return entries
