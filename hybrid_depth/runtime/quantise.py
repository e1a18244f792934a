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
Make the int8_mix file of a model: what the command ``quantise`` does.

Convolutions compute in 8 bits with ranges measured on real frames (QDQ, weights per channel),
multiplications by a weight matrix with ranges taken from each frame. Not every layer bears it:
depth is the exponential of what the last layers say. So groups of layers are tried one by one,
and as many are taken, the mildest first, as keep depth within the limit. The first layer, the last
ones before each output, depthwise convolutions and camera geometry stay as they are.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
import logging
from pathlib import Path
import tempfile
from typing import Any

import numpy as np

from hybrid_depth.contract import METADATA_KEY, ModelSpec, read_spec
from hybrid_depth.drives import open_drive
from hybrid_depth.errors import BackendUnavailable, ConfigError
from hybrid_depth.keyframes import Keyframes
from hybrid_depth.matching import small_map, small_rays, source_inputs, thumbnail
from hybrid_depth.preprocess import network_view, to_network
from hybrid_depth.runtime import BackendOptions, ort
from hybrid_depth.runtime.int8 import int8_path, sha256_of, SOURCE_KEY
from hybrid_depth.scene_prompts import text_inputs

LIMIT = 0.02  # mean relative difference of depth to fp32
DRIVES = ('synthetic:3', 'synthetic:11')
_GROUPS = 8  # that layers are tried in
_SPACING = 4  # frames between two that are used
_LEAST_WEIGHTS = 4096  # of a matrix that is worth it
_log = logging.getLogger(__name__)

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Quantised:
    """What came out."""

    path: Path
    layers: int  # in 8 bits
    candidates: int
    abs_rel: float  # mean relative difference of depth to fp32, on frames not calibrated on
    sigma_rel: float  # the same of sigma
    frames: int  # it was measured on


def quantise(path: Path, out: Path | None = None, drives: Sequence[str] = DRIVES,
             frames: int = 8, limit: float = LIMIT) -> Quantised:
    """
    Write the int8_mix file of the model at ``path``, beside it or to ``out``.

    Of each of ``drives`` twice ``frames`` frames are used: every other one to measure ranges on,
    the rest to judge by. Raises BackendUnavailable where packages are missing or no layer can be
    quantised within ``limit``, ConfigError and DriveError for what was given.
    """
    reason = available()
    if reason:
        raise BackendUnavailable(f'quantise: {reason}')
    if frames < 1:
        raise ConfigError(f'the number of frames is {frames}; expected 1 or more')
    spec = read_spec(path)
    feeds = [feed for drive in drives for feed in _feeds(path, spec, drive, 2 * frames)]
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(path, spec, feeds[::2], feeds[1::2], Path(folder))
        chosen, errors = work.choose(limit)
        target = out or int8_path(path)
        work.save(chosen, target)
    return Quantised(target, len(chosen), len(work.candidates), *errors, len(feeds[1::2]))


def available() -> str:
    """Return '' where models can be quantised, else why not and the remedy."""
    reason = ort.available()
    try:
        import onnx  # noqa: F401 - not on the robot
    except ImportError as error:
        reason = f'{error}; install it with: pip install onnx'
    return reason


def _feeds(path: Path, spec: ModelSpec, name: str, count: int) -> Iterator[Feed]:
    """Yield what the graph is fed for ``count`` frames of a drive, its sources among them."""
    drive = open_drive(name)
    size = spec.network_size(drive.camera.width, drive.camera.height)
    backend = ort.open_backend(path, spec, size, BackendOptions(precision='fp32'))
    keyframes = Keyframes()
    for index in range(0, min(len(drive), count * _SPACING), _SPACING):
        frame = drive.frame(index)
        view = network_view(frame.camera, size)
        image = to_network(frame.image_rgb, view)
        sources = keyframes.choose(frame.stamp_ns, frame.world_T_camera, spec.sources)
        feed = {'image': image, 'K': view.K, **text_inputs(path, spec, ''),
                **source_inputs(spec, sources)}
        if spec.kind == 'posed':
            outputs = backend.infer(feed)
            feed['source_features'] = _stacked(feed['source_features'], outputs['features'])
            if frame.world_T_camera is not None:
                keyframes.add(frame.stamp_ns, frame.world_T_camera, outputs['features'],
                              thumbnail(image[0], spec.feature_stride),
                              small_map(outputs['depth'][0, 0], spec.feature_stride),
                              small_rays(view, spec.feature_stride))
        yield feed
    backend.close()


def _stacked(handles: Sequence[np.ndarray | None], like: np.ndarray) -> np.ndarray:
    """Return handles of the runtime 'ort', which are arrays, as the graph takes them."""
    return np.stack([np.zeros_like(like[0]) if handle is None else handle[0]
                     for handle in handles])[None]


class _Work:
    """One model in the works."""

    def __init__(self, path: Path, spec: ModelSpec, calibration: list[Feed], judged: list[Feed],
                 folder: Path) -> None:
        self._path, self._spec, self._folder = path, spec, folder
        self._calibration, self._judged = calibration, judged
        self._model = ort.save_folded(path, spec, None)
        for entry in list(self._model.opset_import):
            if entry.domain:  # of operators that ONNX Runtime could have put in, and has not
                self._model.opset_import.remove(entry)
        self.candidates = candidates(self._model)
        self._kinds = {node.name: node.op_type for node in self._model.graph.node}
        self._activations = _activations_after(self._model)
        self._expected = self._run(path)

    def choose(self, limit: float) -> tuple[list[str], tuple[float, float]]:
        """Return the layers to quantise and the errors of depth and sigma that they make."""
        groups = groups_of(self.candidates, self._kinds)
        alone = []
        for number, group in enumerate(groups):
            error, _ = self._errors(group)
            _log.info('layers %d of %d groups alone: depth %.2f %% off', number + 1, len(groups),
                      100 * error)
            alone.append((error, number))
        chosen: list[str] = []
        errors = (0.0, 0.0)
        for error, number in sorted(alone):
            if error > limit:
                break
            more = chosen + groups[number]
            found = self._errors(more)
            _log.info('%d of %d layers: depth %.2f %% off', len(more), len(self.candidates),
                      100 * found[0])
            if found[0] <= limit:
                chosen, errors = more, found
        if not chosen:
            raise BackendUnavailable(
                f'no group of layers of {self._path} can be quantised with depth within '
                f'{limit:.1%} of fp32; raise the limit, or use fp32')
        return chosen, errors

    def save(self, layers: list[str], out: Path) -> None:
        """Write the model with ``layers`` in 8 bits to ``out``, whole or not at all."""
        import onnx
        model = onnx.load(str(self._quantised(layers)))
        onnx.helper.set_model_props(model, {METADATA_KEY: self._spec.to_json(),
                                            SOURCE_KEY: sha256_of(self._path)})
        part = out.with_name(f'{out.stem}.part.onnx')
        onnx.save(model, str(part))
        part.replace(out)

    def _quantised(self, layers: list[str]) -> Path:
        from onnxruntime.quantization import QuantType
        # 7 bits: CPUs without VNNI add products of 8 bits in 16, where those overflow
        weights: dict[str, Any] = {'per_channel': True, 'reduce_range': True,
                                   'weight_type': QuantType.QInt8}
        out = self._folder / 'quantised.onnx'
        model: Any = type(self._model)()
        model.CopyFrom(self._model)
        static = [name for name in layers if self._kinds[name] == 'Conv']
        dynamic = [name for name in layers if self._kinds[name] == 'MatMul']
        logging.disable(logging.WARNING)  # what it says is of no use to who runs the command
        try:
            self._write(out, model, static, dynamic, weights)
        finally:
            logging.disable(logging.NOTSET)
        return out

    def _write(self, out: Path, model: Any, static: list[str], dynamic: list[str],
               weights: dict[str, Any]) -> None:
        from onnxruntime.quantization import (
            QuantFormat,
            quantize_dynamic,
            quantize_static,
            QuantType,
        )
        if static:
            # an activation between two of them in 8 bits is part of the first
            static += [self._activations[name] for name in static if name in self._activations]
            quantize_static(model, out, _reader(self._calibration), QuantFormat.QDQ,
                            op_types_to_quantize=['Conv', 'Relu', 'Clip'],
                            nodes_to_quantize=static, activation_type=QuantType.QUInt8, **weights)
            model = out
        if dynamic:
            quantize_dynamic(model, out, op_types_to_quantize=['MatMul'],
                             nodes_to_quantize=dynamic, **weights)

    def _errors(self, layers: list[str]) -> tuple[float, float]:
        pairs = list(zip(self._run(self._quantised(layers)), self._expected, strict=True))
        depth, sigma = (float(np.mean([np.abs(found[i] / right[i] - 1).mean()
                                       for found, right in pairs])) for i in (0, 1))
        return depth, sigma

    def _run(self, path: Path) -> list[list[np.ndarray]]:
        """Return depth and sigma of each frame that is judged by."""
        sessions: dict[tuple[int, ...], Any] = {}
        answers = []
        for feed in self._judged:
            size = feed['image'].shape[1:3]
            if size not in sessions:
                sessions[size] = ort.open_session(
                    path, path, ort.session_options(self._spec, size, 2),
                    ['CPUExecutionProvider'])
            answers.append(sessions[size].run(['depth', 'sigma'], feed))
        return answers


def candidates(model: Any) -> list[str]:
    """
    Return the names of the layers that may be quantised, in the order of the graph.

    Dense convolutions, and multiplications by a weight matrix; not the first convolution, and not
    the last ones on the way to an output.
    """
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ('Conv', 'MatMul')
              and len(weights.get(node.input[1], ())) >= 2]
    last = _last_layers(model.graph, {node.name for node in layers})
    found = []
    for node in layers[1:]:
        shape = weights[node.input[1]]
        is_depthwise = node.op_type == 'Conv' and shape[1] == 1
        if not is_depthwise and node.name not in last and np.prod(shape) >= _LEAST_WEIGHTS:
            found.append(node.name)
    return found


def groups_of(layers: Sequence[str], kinds: Mapping[str, str]) -> list[list[str]]:
    """
    Split ``layers`` into about _GROUPS groups of neighbours of one kind.

    Products cost depth little and gain the most; in a group with convolutions they would be judged
    by those.
    """
    groups = []
    for kind in ('MatMul', 'Conv'):
        names = [name for name in layers if kinds[name] == kind]
        count = max(1, round(_GROUPS * len(names) / max(1, len(layers))))
        bounds = np.linspace(0, len(names), count + 1).astype(int)
        groups += [names[a:b] for a, b in pairwise(bounds) if a < b]
    return groups


def _last_layers(graph: Any, layers: set[str]) -> set[str]:
    """Return the first of ``layers`` that one meets on each way back from the outputs."""
    producers = {name: node for node in graph.node for name in node.output}
    ways, seen, found = [value.name for value in graph.output], set[str](), set[str]()
    while ways:
        name = ways.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.name in layers:
            found.add(node.name)
        else:
            ways += node.input
    return found


def _activations_after(model: Any) -> dict[str, str]:
    """Return the activation that alone reads a convolution, by the name of that."""
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {node.name: readers[node.output[0]][0].name for node in model.graph.node
            if node.op_type == 'Conv'
            and [reader.op_type for reader in readers.get(node.output[0], ())]
            in (['Relu'], ['Clip'])}


def _reader(feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    return Reader()
