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

Convolutions compute in 8 bits with ranges measured on real frames (``quantise_conv``),
multiplications by a weight matrix with ranges taken from each frame (``quantise_products``); both
with weights rounded for what those frames put in (``rounding``). Not every layer bears it: depth
is the exponential of what the last layers say. So groups of layers are tried one by one, and as
many are taken as keep depth within the limit, first those that save the most time for the error
they make. The first layer, the last ones before each output, depthwise convolutions, what gains
little anyway and camera geometry stay as they are. Attention stays in float, fused.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from hybrid_depth.runtime.fuse_attention import fuse_attention
from hybrid_depth.runtime.int8 import int8_path, sha256_of, SOURCE_KEY
from hybrid_depth.runtime.join_sums import join_sums
from hybrid_depth.runtime.lighter import lighten
from hybrid_depth.runtime.quantisable import candidates, gain_of, groups_of
from hybrid_depth.runtime.quantise_conv import (
    chains,
    Convolution,
    convolution_of,
    quantise_convolutions,
    ranges_of,
    widened,
)
from hybrid_depth.runtime.quantise_products import Product, product_of, quantise_products
from hybrid_depth.runtime.rounding import gram_of
from hybrid_depth.scene_prompts import text_inputs

LIMIT = 0.02  # mean relative difference of depth to fp32
DRIVES = ('synthetic:3', 'synthetic:11', 'synthetic:7')
_FUSED_LIMIT = 1e-3  # mean relative difference of depth that rounding may make
_SPACING = 4  # frames between two that are used
_LEAST_SHARE = 1 / 400  # of the gain of all layers, of one that is worth the error
_log = logging.getLogger(__name__)

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Quantised:
    """What came out."""

    path: Path
    layers: int  # in 8 bits
    candidates: int
    abs_rel: float  # mean relative difference of depth to fp32, on frames no range is of
    sigma_rel: float  # the same of sigma
    frames: int  # it was measured on


def quantise(path: Path, out: Path | None = None, drives: Sequence[str] = DRIVES,
             frames: int = 8, limit: float = LIMIT) -> Quantised:
    """
    Write the int8_mix file of the model at ``path``, beside it or to ``out``.

    Ranges are measured on ``frames`` frames of each of ``drives`` but the last, which judges: it
    should be another place. Of one drive alone the first half measures, the second judges. Raises
    BackendUnavailable where packages are missing or no layer can be quantised within ``limit``,
    ConfigError and DriveError for what was given.
    """
    reason = available()
    if reason:
        raise BackendUnavailable(f'quantise: {reason}')
    if frames < 1:
        raise ConfigError(f'the number of frames is {frames}; expected 1 or more')
    spec = read_spec(path)
    model = _folded(path, spec)
    if not candidates(model):
        raise BackendUnavailable(f'{path} has no layers that 8 bits are worth while for; use fp32')
    measured, judged = _frames_of(path, spec, drives, frames)
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(path, spec, model, measured, judged, Path(folder))
        chosen, errors = work.choose(limit)
        target = out or int8_path(path)
        work.save(chosen, target)
    return Quantised(target, len(chosen), len(work.candidates), *errors, len(judged))


def available() -> str:
    """Return '' where models can be quantised, else why not and the remedy."""
    reason = ort.available()
    try:
        import onnx  # noqa: F401 - not on the robot
    except ImportError as error:
        reason = f'{error}; install it with: pip install onnx'
    return reason


def _folded(path: Path, spec: ModelSpec) -> Any:
    """Return the ModelProto at ``path``, standard operators alone."""
    model = ort.save_folded(path, spec, None)
    for entry in list(model.opset_import):
        if entry.domain:  # of operators that ONNX Runtime could have put in, and has not
            model.opset_import.remove(entry)
    return model


def _frames_of(path: Path, spec: ModelSpec, drives: Sequence[str],
               frames: int) -> tuple[list[Feed], list[Feed]]:
    """Return what ranges are measured on, and what is judged by."""
    if len(drives) == 1:
        feeds = list(_feeds(path, spec, drives[0], 2 * frames))
        return feeds[:len(feeds) // 2], feeds[len(feeds) // 2:]
    *first, last = ([*_feeds(path, spec, drive, frames)] for drive in drives)
    return [feed for feeds in first for feed in feeds], last


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

    def __init__(self, path: Path, spec: ModelSpec, model: Any, measured: list[Feed],
                 judged: list[Feed], folder: Path) -> None:
        self._path, self._spec, self._folder = path, spec, folder
        self._model, self._judged = model, judged
        self._expected = self._run(path)
        self._lighten()
        names = candidates(self._model)
        self._kinds = {node.name: node.op_type for node in self._model.graph.node
                       if node.name in names}
        joined = self._copy()
        join_sums(joined, self._convolutions(names))
        self._quantised_layers, self._gain = self._measure(joined, names, measured)
        self._after = chains(joined, self._gain)
        self.candidates = list(self._gain)

    def _lighten(self) -> None:
        """Fuse attention and the like, where that leaves depth what it was."""
        import onnx
        plain = self._copy()
        fused, places = fuse_attention(self._model), lighten(self._model)
        if not fused + places:
            return
        path = self._folder / 'lighter.onnx'
        onnx.save(self._model, path)
        error, _ = self._off(path)
        _log.info('%d attentions fused, %d places lighter: depth %.1e off', fused, places, error)
        if not error < _FUSED_LIMIT:  # a form that only looks as the known one does
            self._model = plain

    def _convolutions(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self._kinds[name] == 'Conv']

    def choose(self, limit: float) -> tuple[list[str], tuple[float, float]]:
        """Return the layers to quantise and the errors of depth and sigma that they make."""
        groups = groups_of(self.candidates, self._kinds, self._after)
        alone = []
        for number, group in enumerate(groups):
            error, _ = self._errors(group)
            gain = sum(self._gain[name] for name in group)
            _log.info('group %d of %d alone (%s): %.1f %% of the gain, depth %.2f %% off',
                      number + 1, len(groups), ', '.join(group[:2]),
                      100 * gain / sum(self._gain.values()), 100 * error)
            if error <= limit:
                alone.append((error ** 2 / gain, error, group))
        alone.sort(key=lambda entry: entry[0])
        order = [group for *_, group in alone]
        # errors of groups hardly depend on each other, so their squares add up, nearly
        together = np.sqrt(np.cumsum([error ** 2 for _, error, _ in alone]))
        chosen, errors = self._as_many(order, int((together <= limit).sum()), limit)
        if not chosen:
            raise BackendUnavailable(
                f'no group of layers of {self._path} can be quantised with depth within '
                f'{limit:.1%} of fp32; raise the limit, or use fp32')
        return chosen, errors

    def _as_many(self, order: list[list[str]], count: int,
                 limit: float) -> tuple[list[str], tuple[float, float]]:
        """Return the first groups, about ``count``, that depth bears together, and the errors."""
        best: tuple[list[str], tuple[float, float]] = ([], (0.0, 0.0))
        while 0 < count <= len(order):
            layers = [name for group in order[:count] for name in group]
            errors = self._errors(layers)
            _log.info('%d of %d layers: depth %.2f %% off', len(layers), len(self.candidates),
                      100 * errors[0])
            if errors[0] <= limit:
                best = (layers, errors)
                count += 1
            elif best[0]:
                break
            else:
                count -= 1
        return best

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
        import onnx
        out = self._folder / 'quantised.onnx'
        model = self._copy()
        chosen = {name: self._quantised_layers[name] for name in layers}
        convolutions = {name: one for name, one in chosen.items() if isinstance(one, Convolution)}
        join_sums(model, convolutions)
        quantise_convolutions(model, convolutions)
        quantise_products(model, {name: one for name, one in chosen.items()
                                  if isinstance(one, Product)})
        onnx.save(model, out)
        return out

    def _copy(self) -> Any:
        model: Any = type(self._model)()
        model.CopyFrom(self._model)
        return model

    def _measure(self, model: Any, layers: Sequence[str], feeds: list[Feed],
                 ) -> tuple[dict[str, Convolution | Product], dict[str, int]]:
        """Return the ``layers`` of ``model`` that gain enough in 8 bits, and what each gains."""
        import onnx
        from onnx import numpy_helper
        nodes = {node.name: node for node in model.graph.node if node.name in layers}
        weights = {weight.name: numpy_helper.to_array(weight)
                   for weight in model.graph.initializer}
        watched = dict.fromkeys(name for node in nodes.values()
                                for name in (node.input[0], node.output[0]))
        there = {value.name for value in model.graph.output}
        path = self._folder / 'watched.onnx'
        onnx.save(_with_outputs(model, [name for name in watched if name not in there]), path)
        gains: dict[str, int] = {}
        seen: dict[str, Any] = {}
        grams: dict[str, Any] = {}
        for arrays in self._answers(path, feeds if layers else [], list(watched)):
            found = dict(zip(watched, arrays, strict=True))
            if not gains:
                gains = {name: gain_of(node, weights[node.input[1]].shape,
                                       *(found[one] for one in (node.input[0], node.output[0])))
                         for name, node in nodes.items()}
                least = _LEAST_SHARE * sum(gain for gain in gains.values() if gain > 0)
                gains = {name: gain for name, gain in gains.items() if gain >= max(least, 1)}
            frame: dict[Any, np.ndarray] = {}
            for name in gains:
                node = nodes[name]
                x, shape = found[node.input[0]], weights[node.input[1]].shape
                # products of the same values have the same
                key = name if node.op_type == 'Conv' else node.input[0]
                if key not in frame:
                    frame[key] = gram_of(node, shape, x)
                    grams[key] = grams[key] + frame[key] if key in grams else frame[key]
                if node.op_type == 'Conv':
                    new = ranges_of(x, found[node.output[0]])
                    seen[name] = widened(seen[name], new) if name in seen else new
        quantised: dict[str, Convolution | Product] = {}
        for name in gains:
            node = nodes[name]
            weight, *bias = (weights[one] for one in node.input[1:])
            quantised[name] = product_of(weight, grams[node.input[0]]) \
                if node.op_type == 'MatMul' else convolution_of(
                    weight, bias[0] if bias else None, seen[name], grams[name])
        return quantised, gains

    def _errors(self, layers: list[str]) -> tuple[float, float]:
        return self._off(self._quantised(layers))

    def _off(self, path: Path) -> tuple[float, float]:
        """Return the mean relative differences of depth and sigma to fp32."""
        pairs = list(zip(self._run(path), self._expected, strict=True))
        depth, sigma = (float(np.mean([np.abs(found[i] / right[i] - 1).mean()
                                       for found, right in pairs])) for i in (0, 1))
        return depth, sigma

    def _run(self, path: Path) -> list[list[np.ndarray]]:
        """Return depth and sigma of each frame that is judged by."""
        return list(self._answers(path, self._judged, ['depth', 'sigma']))

    def _answers(self, path: Path, feeds: list[Feed],
                 names: list[str]) -> Iterator[list[np.ndarray]]:
        """Yield what is called ``names`` for each of ``feeds``."""
        sessions: dict[tuple[int, ...], Any] = {}
        for feed in feeds:
            size = feed['image'].shape[1:3]
            if size not in sessions:
                sessions[size] = ort.open_session(
                    path, path, ort.session_options(self._spec, size, 2),
                    ['CPUExecutionProvider'])
            yield sessions[size].run(names, feed)


def _with_outputs(model: Any, names: Sequence[str]) -> Any:
    """Return a copy of ``model`` that answers what is called ``names`` as well."""
    from onnx import helper, TensorProto
    copy = type(model)()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
                             for name in names)
    return copy

