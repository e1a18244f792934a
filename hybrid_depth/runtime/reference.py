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
What a runtime has to answer: inputs at one network size, and the outputs that are right for them.

Golden outputs, of torch, lie beside a shipped model at two sizes. An engine is built for the size
of one camera. At any other size, and for a model file that has no golden.npz, the outputs of ONNX
Runtime on the CPU are the reference; it is itself checked on the golden ones where they are. Its
inputs are the golden images, or, for a model that matches frames, frames of a rendered drive.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
import tokenize
from typing import Any
import zipfile
import zlib

import cv2
import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.drives import DriveFrame
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, ort

GOLDEN = 'golden.npz'  # beside the model
_SYNTHETIC = ((7, 16), (8, 40))  # seed and frame of the images for a model without golden.npz
# seed, newest frame and step backwards of frames that are matched. They are of one drive: where
# nothing matches the last bit decides, and that is no question to a runtime
_DRIVE, _NEWEST, _STEP = 8, 40, 2
_GOLDEN_BYTES = 1 << 30  # of golden.npz unpacked; ours take some 10 MB
# what reading a damaged archive raises; MemoryError: an array that claims to be huge
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, NotImplementedError, RuntimeError,
               MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """One question and its answer, as arrays of the shapes and types that ModelSpec names."""

    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True)
class Reference:
    """The cases for one network size."""

    cases: tuple[Case, ...]
    source: str  # where the answers come from, for people


def find_reference(path: Path, spec: ModelSpec, size: tuple[int, int],
                   options: BackendOptions) -> Reference:
    """
    Return what any runtime of the model at ``path`` has to answer at network ``size`` (H, W).

    Raises ContractError where golden.npz is damaged, BackendUnavailable where ONNX Runtime is
    needed for the answers and is missing, or gives others than the golden ones.
    """
    golden = read_golden(path.with_name(GOLDEN), spec)
    fitting = tuple(case for case in golden if case.inputs['image'].shape[1:3] == size)
    if fitting:
        return Reference(fitting, f'golden outputs at {_name(size)}')
    cpu = replace(options, precision='fp32')
    checked = f'there is no {GOLDEN} beside the model'
    if golden:
        _check_ort(path, spec, golden[0], cpu)
        checked = f'itself right on the golden outputs at {_name(_size(golden[0]))}'
    questions = _drive_inputs(spec, size) if spec.kind == 'posed' else \
        _image_inputs(spec, size, golden)
    return Reference(_cases_by_ort(path, spec, size, questions, cpu),
                     f'ONNX Runtime on the CPU at {_name(size)} ({checked})')


def read_golden(path: Path, spec: ModelSpec) -> list[Case]:
    """Return the golden cases; [] where there is no file. Raises ContractError."""
    remedy = 'copy it or export the model again'
    try:
        with np.load(path, allow_pickle=False) as stored:
            unpacked = sum(entry.file_size for entry in stored.zip.infolist())
            if unpacked > _GOLDEN_BYTES:
                raise ValueError(f'it unpacks to {unpacked} bytes; at most {_GOLDEN_BYTES} are '
                                 'read')
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return []
    except _UNREADABLE as error:
        raise ContractError(f'{path} cannot be read: {error}; {remedy}') from error
    cases = []
    for index in sorted({name.split('_', 1)[0] for name in arrays}):
        image = arrays.get(f'{index}_image')
        if image is None or image.ndim != 4:
            raise ContractError(f'{path} has no image in its case {index}; {remedy}')
        parts = []
        for tensors in (spec.inputs(image.shape[1:3]), spec.outputs(image.shape[1:3])):
            part = {}
            for name, (dtype, shape) in tensors.items():
                found = arrays.get(f'{index}_{name}')
                if found is None or found.shape != shape or found.dtype != dtype:
                    raise ContractError(
                        f'{path} holds for {name!r} of its case {index} '
                        f'{"nothing" if found is None else f"{found.dtype} {found.shape}"}; the '
                        f'contract says {dtype} {shape}; {remedy}')
                part[name] = found
            parts.append(part)
        cases.append(Case(*parts))
    return cases


def feed_of(spec: ModelSpec, inputs: Arrays) -> dict[str, Any]:
    """Return ``inputs`` as a backend takes them: one handle, here an array, per source."""
    feed: dict[str, Any] = dict(inputs)
    if spec.kind == 'posed':
        feed['source_features'] = tuple(np.ascontiguousarray(features[None])
                                        for features in inputs['source_features'][0])
    return feed


def _check_ort(path: Path, spec: ModelSpec, case: Case, options: BackendOptions) -> None:
    from hybrid_depth.runtime.acceptance import accept  # which needs Reference
    backend = ort.open_backend(path, spec, _size(case), options)
    try:
        verdict = accept(backend, spec, Reference((case,), 'golden outputs'), 'fp32')
    finally:
        backend.close()
    if not verdict.ok:
        raise BackendUnavailable('ONNX Runtime on this CPU cannot serve as reference, for its own '
                                 f'outputs are not the golden ones: {verdict.reason}; install '
                                 'another version of onnxruntime, or, if it is that of another '
                                 f'model, take {GOLDEN} away')


def _cases_by_ort(path: Path, spec: ModelSpec, size: tuple[int, int],
                  questions: list[dict[str, np.ndarray]], options: BackendOptions,
                  ) -> tuple[Case, ...]:
    backend = ort.open_backend(path, spec, size, options)
    try:
        if spec.kind == 'posed':
            maps = [backend.infer(feed_of(spec, inputs))['features'].copy()
                    for inputs in questions]
            for inputs, others in zip(questions, _others(maps), strict=True):
                inputs['source_features'] = np.concatenate(others)[None]
                inputs['source_valid'] = np.ones((1, spec.sources), np.float32)
        return tuple(Case(inputs, {name: array.copy() for name, array
                                   in backend.infer(feed_of(spec, inputs)).items()})
                     for inputs in questions)
    finally:
        backend.close()


def _drive_inputs(spec: ModelSpec, size: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """Return frames of one drive, each with the others as sources, whose features are lacking."""
    frames = _drive_frames(1 + spec.sources)
    questions = []
    for frame, others in zip(frames, _others(frames), strict=True):
        world_T_source = np.array([other.world_T_camera for other in others])
        source_T_target = np.linalg.inv(world_T_source) @ frame.world_T_camera
        questions.append({
            **{name: np.zeros(shape, dtype) for name, (dtype, shape) in spec.inputs(size).items()},
            'source_T_target': source_T_target.astype(np.float32)[None],
            **_resized(frame.image_rgb, frame.camera.K, size)})
    return questions


def _others(items: list[Any]) -> list[list[Any]]:
    """Return for each of ``items`` the others, beginning with the next."""
    return [items[index + 1:] + items[:index] for index in range(len(items))]


def _image_inputs(spec: ModelSpec, size: tuple[int, int], golden: list[Case],
                  ) -> list[dict[str, np.ndarray]]:
    """Return single images, golden ones where there are some, and what else the model takes."""
    images = [(case.inputs['image'][0], case.inputs['K'][0]) for case in golden] \
        or _synthetic_images()
    return [{**_other_inputs(spec, size, golden[index].inputs if golden else {}),
             **_resized(image, K, size)} for index, (image, K) in enumerate(images)]


def _resized(image: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    height, width = size
    sx, sy = width / image.shape[1], height / image.shape[0]
    # the centre of the first pixel is at 0
    to_size = np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])
    return {'image': cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)[None],
            'K': (to_size @ K).astype(np.float32)[None]}


def _other_inputs(spec: ModelSpec, size: tuple[int, int], golden: Arrays) -> dict[str, np.ndarray]:
    """Make the inputs beside image and K: the golden ones that fit, else a direction."""
    inputs = {}
    for name, (dtype, shape) in spec.inputs(size).items():
        if name in golden and golden[name].shape == shape:
            inputs[name] = golden[name]
        elif name not in ('image', 'K'):  # an embedding
            values = np.random.default_rng(7).standard_normal(shape).astype(dtype)
            inputs[name] = values / np.linalg.norm(values)
    return inputs


@cache  # rendering takes longer than a small model
def _synthetic_images() -> list[tuple[np.ndarray, np.ndarray]]:
    from hybrid_depth.drives.synthetic import open_drive  # the renderer is needed nowhere else
    frames = [open_drive(seed).frame(index) for seed, index in _SYNTHETIC]
    return [(frame.image_rgb, frame.camera.K) for frame in frames]


@cache
def _drive_frames(count: int) -> list[DriveFrame]:
    from hybrid_depth.drives.synthetic import open_drive
    drive = open_drive(_DRIVE)
    return [drive.frame(_NEWEST - _STEP * index) for index in range(count)]


def _size(case: Case) -> tuple[int, int]:
    height, width = case.inputs['image'].shape[1:3]
    return height, width


def _name(size: tuple[int, int]) -> str:
    return f'{size[1]}x{size[0]}'
