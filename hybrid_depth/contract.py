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
The contract of a model file: what goes in, what comes out, in which units.

The contract travels inside the ONNX file (metadata key ``hybrid_depth.spec``, JSON), so a file
and its meaning cannot be parted. It is read here without ONNX or any runtime, hence before one is
chosen, and a file that is cut short is noticed at the same time.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass
import json
import math
from pathlib import Path
from typing import BinaryIO

from hybrid_depth.errors import ContractError

METADATA_KEY = 'hybrid_depth.spec'
SCHEMA = 3  # schemas 1 and 2, without the fields that came later, are read as well
KINDS = ('single_frame', 'posed', 'clip_prior')
_POSED_FIELDS = ('sources', 'feature_channels', 'feature_stride')  # new in schema 2
_TEXT_FIELD = 'text_dim'  # new in schema 3
_NEW_SINCE = {1: (*_POSED_FIELDS, _TEXT_FIELD), 2: (_TEXT_FIELD,)}
_MAX_TEXT_DIM = 1 << 17
_MAX_SOURCES = 8
TensorType = tuple[str, tuple[int, ...]]  # dtype as NumPy names it, shape
_METADATA_LIMIT = 1 << 20  # bytes of one metadata entry; ours is under 1 kB
_METADATA_PROPS = 14  # field number of ModelProto.metadata_props
_GRAPH = 7  # field number of ModelProto.graph


@dataclass(frozen=True)
class ModelSpec:
    """
    What a model expects and gives.

    Graph inputs: ``image`` (1, H, W, 3) uint8 RGB and ``K`` (1, 3, 3) float32, pixels of that
    image. Graph outputs: ``depth`` (1, 1, H, W) float32 metres along +Z and ``sigma``, same shape,
    one standard deviation in metres. Normalisation is inside the graph.

    A graph of kind 'posed' also matches against S = ``sources`` earlier frames, on maps of
    h = H / ``feature_stride`` by w = W / ``feature_stride``. More inputs, all float32:
    ``source_features`` (1, S, C, h, w), C = ``feature_channels``: the output ``features`` of each
    earlier frame; ``source_T_target`` (1, S, 4, 4): takes points of this camera to the earlier
    one, optical frames, metres; ``source_valid`` (1, S): 1 = there is such a frame, 0 = ignore.
    More outputs, all float32: ``features`` (1, C, h, w), to be fed back later; ``single_depth``
    (1, 1, h, w) metres: what the image alone says; ``matched_depth`` (1, 1, h, w) metres: what
    matching alone says; ``match_weight`` (1, 1, h, w), 0 to 1: how much the result rests on
    matching. With ``source_valid`` all 0 the result is that of the single image.

    A graph of kind 'clip_prior' has one more input, ``text`` (1, ``text_dim``) float32: the
    features of a sentence about the scene; see scene_prompts.
    """

    name: str
    schema: int  # of this contract; the reader refuses others
    kind: str  # one of KINDS
    size_multiple: int  # H and W are multiples of this
    pixels: int  # H * W the model was trained near; the resolution for a camera follows from it
    min_depth_m: float
    max_depth_m: float
    licence: str  # SPDX identifier of the weights
    trained_on: tuple[str, ...]
    sources: int = 0  # earlier frames that the graph takes; 0 for 'single_frame', as the next two
    feature_channels: int = 0
    feature_stride: int = 0  # network pixels per feature pixel
    text_dim: int = 0  # length of the features of a sentence; 0 but for 'clip_prior'

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ContractError(f'model {self.name!r} has contract schema {self.schema!r}; this '
                                f'version reads schemas 1 to {SCHEMA}; use matching versions')
        if self.kind not in KINDS:
            raise ContractError(f'model {self.name!r} is of kind {self.kind!r}; expected one of '
                                f'{KINDS}')
        if not all(isinstance(text, str) for text in (self.name, self.licence, *self.trained_on)):
            raise ContractError('contract fields name, licence and trained_on hold something '
                                'other than text; export the model again')
        for key in ('size_multiple', 'pixels'):
            value = getattr(self, key)
            if type(value) is not int or not 1 <= value <= 1 << 26:
                raise ContractError(f'contract field {key} is {value!r}; expected a positive '
                                    'integer')
        self._check_posed()
        low, high = (1, _MAX_TEXT_DIM) if self.kind == 'clip_prior' else (0, 0)
        if type(self.text_dim) is not int or not low <= self.text_dim <= high:
            raise ContractError(f'contract field text_dim is {self.text_dim!r}; expected an '
                                f'integer from {low} to {high} for a model of kind {self.kind!r}')
        depths = (self.min_depth_m, self.max_depth_m)
        if not all(isinstance(d, float) and math.isfinite(d) for d in depths) or \
                not 0 < self.min_depth_m < self.max_depth_m:
            raise ContractError(f'contract depth range is {depths!r}; expected 0 < min < max')

    def _check_posed(self) -> None:
        for key, most in zip(_POSED_FIELDS, (_MAX_SOURCES, 4096, self.size_multiple), strict=True):
            value = getattr(self, key)
            low, high = (1, most) if self.kind == 'posed' else (0, 0)
            if type(value) is not int or not low <= value <= high:
                raise ContractError(f'contract field {key} is {value!r}; expected an integer from '
                                    f'{low} to {high} for a model of kind {self.kind!r}')
        if self.kind == 'posed' and self.size_multiple % self.feature_stride:
            raise ContractError(f'contract field feature_stride is {self.feature_stride}; '
                                f'expected a divisor of size_multiple ({self.size_multiple})')

    def inputs(self, size: tuple[int, int]) -> dict[str, TensorType]:
        """Return name -> (dtype, shape) of the graph's inputs for a network of ``size`` (H, W)."""
        height, width = size
        tensors: dict[str, TensorType] = {'image': ('uint8', (1, height, width, 3)),
                                          'K': ('float32', (1, 3, 3))}
        if self.kind == 'posed':
            features = (1, self.sources, self.feature_channels, *self.feature_size(size))
            tensors |= {'source_features': ('float32', features),
                        'source_T_target': ('float32', (1, self.sources, 4, 4)),
                        'source_valid': ('float32', (1, self.sources))}
        if self.kind == 'clip_prior':
            tensors['text'] = 'float32', (1, self.text_dim)
        return tensors

    def outputs(self, size: tuple[int, int]) -> dict[str, TensorType]:
        """Return name -> (dtype, shape) of the graph's outputs for a network of ``size``."""
        names = {'depth': (1, 1, *size), 'sigma': (1, 1, *size)}
        if self.kind == 'posed':
            small = (1, 1, *self.feature_size(size))
            names |= {'features': (1, self.feature_channels, *small[2:]), 'single_depth': small,
                      'matched_depth': small, 'match_weight': small}
        return {name: ('float32', shape) for name, shape in names.items()}

    def feature_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) of the feature maps of a network of ``size`` (H, W), kind 'posed'."""
        return size[0] // self.feature_stride, size[1] // self.feature_stride

    def to_json(self) -> str:
        """Return the text that is stored under ``METADATA_KEY``."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """
        Parse what ``to_json`` wrote; an older schema becomes the same contract in this one.

        Raises ContractError naming what is wrong.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ContractError(f'the model contract is not JSON: {error}') from error
        if not isinstance(fields, dict):
            raise ContractError('the model contract is not a JSON object')
        known = set(cls.__dataclass_fields__)
        schema = fields.get('schema')
        new = _NEW_SINCE.get(schema, ()) if type(schema) is int else ()
        if new and not set(fields) & set(new):
            fields |= {'schema': SCHEMA, **dict.fromkeys(new, 0)}
        if set(fields) != known:
            raise ContractError('the model contract has other fields than expected: missing '
                                f'{sorted(known - set(fields))}, unknown '
                                f'{sorted(set(fields) - known)}; export the model again')
        if not isinstance(fields['trained_on'], list):
            raise ContractError(f"contract field trained_on is {fields['trained_on']!r}; expected "
                                'a list of names')
        return cls(**{**fields, 'trained_on': tuple(fields['trained_on'])})

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """
        Choose the network's (H, W) for a camera of ``width`` x ``height``.

        The camera's aspect ratio at about ``pixels`` pixels, rounded to ``size_multiple``.
        """
        scale = math.sqrt(self.pixels / (width * height))
        step = self.size_multiple
        return (max(step, round(height * scale / step) * step),
                max(step, round(width * scale / step) * step))


def read_spec(path: Path) -> ModelSpec:
    """
    Read the contract of the ONNX file at ``path``.

    Raises ContractError where the file is absent, cut short, not ONNX, or without a contract.
    """
    path = Path(path)
    if not path.is_file():
        raise ContractError(f'there is no model file {path}; name one of the shipped models or '
                            'the path of an exported .onnx file')
    try:
        metadata = read_metadata(path)
    except OSError as error:
        raise ContractError(f'the model file {path} cannot be read: {error}') from error
    if METADATA_KEY not in metadata:
        raise ContractError(f'{path} carries no {METADATA_KEY!r} metadata, so its inputs and '
                            'units are unknown; export it with '
                            'python -m hybrid_depth_training export')
    return ModelSpec.from_json(metadata[METADATA_KEY])


def read_metadata(path: Path) -> dict[str, str]:
    """Collect ModelProto.metadata_props by walking the top level of the protobuf."""
    size = path.stat().st_size
    metadata: dict[str, str] = {}
    has_graph = False
    with path.open('rb') as stream:
        while stream.tell() < size:
            tag = _varint(stream, path)
            number, wire = tag >> 3, tag & 7
            if wire == 0:
                _varint(stream, path)
                continue
            if wire != 2:
                raise ContractError(f'{path} is not an ONNX file (protobuf wire type {wire} at '
                                    f'byte {stream.tell()})')
            length = _varint(stream, path)
            end = stream.tell() + length
            if end > size:
                raise ContractError(f'{path} is cut short: a field ends at byte {end} of {size}; '
                                    'copy or download the file again')
            if number == _METADATA_PROPS:
                if length > _METADATA_LIMIT:
                    raise ContractError(f'{path} has a metadata entry of {length} bytes; at most '
                                        f'{_METADATA_LIMIT} are read')
                key, value = _string_pair(stream, end, path)
                metadata[key] = value
            has_graph |= number == _GRAPH
            stream.seek(end)
    if not has_graph:
        raise ContractError(f'{path} is not an ONNX file: it holds no graph')
    return metadata


def _string_pair(stream: BinaryIO, end: int, path: Path) -> tuple[str, str]:
    """Read a StringStringEntryProto that ends at byte ``end``."""
    pair = {1: '', 2: ''}
    while stream.tell() < end:
        number = _varint(stream, path) >> 3
        length = _varint(stream, path)
        if stream.tell() + length > end:
            raise ContractError(f'{path} has a damaged metadata entry; copy the file again')
        pair[number] = stream.read(length).decode('utf-8', errors='replace')
    return pair[1], pair[2]


def _varint(stream: BinaryIO, path: Path) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise ContractError(f'{path} is cut short; copy or download the file again')
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ContractError(f'{path} is not an ONNX file: it holds a number of more than 64 bits')
