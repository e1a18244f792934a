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
"""Numbers, text and bytes from outside: refused by name, or a value within its bounds."""
from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
import zipfile

from hypothesis import example, given, settings
from hypothesis import strategies as st
import numpy as np
import onnx
import pytest
from tiny_model import POSED, tiny_spec, write_tiny_model

from hybrid_depth.camera import CameraModel, MAX_PIXELS, MAX_SIDE
from hybrid_depth.compressed import compressed_size, decode_compressed
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import ModelSpec
from hybrid_depth.drives.bag_poses import find_mounting
from hybrid_depth.encodings import decode_pixels, ENCODINGS
from hybrid_depth.engine import Engine
from hybrid_depth.errors import BadFrame, ConfigError, ContractError, DriveError
from hybrid_depth.keyframes import is_rigid
from hybrid_depth.models import find_model
from hybrid_depth.poses import PoseBuffer
from hybrid_depth.runtime import BackendOptions, load_backend
from hybrid_depth.runtime.reference import read_golden

quick = settings(max_examples=60, deadline=None, derandomize=True)
numbers = st.floats(allow_nan=True, allow_infinity=True)
unsigned = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1))
json_values = st.recursive(st.none() | st.booleans() | st.integers() | numbers
                           | st.text(max_size=9),
                           lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@quick
@given(size=st.tuples(unsigned, unsigned), K=st.lists(numbers, min_size=9, max_size=9),
       D=st.lists(numbers, max_size=14), binning=st.tuples(unsigned, unsigned),
       roi=st.tuples(*[unsigned] * 4),
       model=st.sampled_from(['', 'plumb_bob', 'equidistant', 'x']))
@example((65535, 65535), [100.0, 0, 64, 0, 100, 48, 0, 0, 1], [], (1, 1), (0, 0, 0, 0), '')
@example((64, 48), [100.0, 0, 32, 0, 100, 24, 0, 0, 1], [], (1, 1), (0, 0, 2**31, 2**31), '')
@example((64, 48), [1e300, 0, 32, 0, 1e300, 24, 0, 0, 1], [], (1, 1), (0, 0, 0, 0), '')
def test_a_calibration_is_a_bounded_camera_or_bad(size, K, D, binning, roi, model):
    reason, camera = '', None
    try:
        camera = CameraModel.from_calibration(*size, K, D, [0.0] * 12, model, rectified=False,
                                              binning=binning, roi=roi)
    except BadFrame as bad:
        reason = bad.reason
    if camera is None:
        assert reason in ('bad_camera_info', 'no_intrinsics')
        return
    assert 1 <= camera.width <= MAX_SIDE
    assert 1 <= camera.height <= MAX_SIDE
    assert camera.width * camera.height <= MAX_PIXELS
    height, width = tiny_spec().network_size(camera.width, camera.height)
    assert height * width <= 1 << 24
    with np.errstate(over='raise', invalid='raise'):
        camera.K.astype(np.float32)
        camera.ray_axes()


@quick
@given(changes=st.dictionaries(
    st.sampled_from([*ModelSpec.__dataclass_fields__, 'more']), json_values, min_size=1,
    max_size=2))
def test_a_contract_is_read_back_or_refused(changes):

    text = json.dumps({**json.loads(tiny_spec(**POSED).to_json()), **changes})
    try:
        spec = ModelSpec.from_json(text)
    except ContractError:
        return
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert all(np.prod(shape) < 1 << 50 for _, shape in spec.inputs((16, 16)).values())


@quick
@given(changes=st.dictionaries(st.sampled_from([*PipelineConfig.__dataclass_fields__, 'more']),
                               json_values | st.dictionaries(st.text(max_size=2), numbers),
                               max_size=2))
def test_a_configuration_is_typed_or_refused(changes):
    config, text = None, ''
    try:
        config = PipelineConfig.from_mapping(changes)
    except ConfigError as error:
        text = str(error)
    if config is None:
        assert any(key in text for key in changes)
        return
    for name, value in changes.items():
        assert getattr(config, name) == value
        assert type(getattr(config, name)) is type(getattr(PipelineConfig(), name))


@quick
@given(size=st.tuples(unsigned, unsigned), step=unsigned,
       encoding=st.sampled_from([*ENCODINGS, 'x']),
       length=st.integers(0, 3000), is_bigendian=st.booleans())
@example((10, 10), 30, 'rgb8', 300, False)
@example((2**32 - 1, 1), 0, 'rgb8', 0, False)
def test_pixels_are_of_the_size_that_was_said(size, step, encoding, length, is_bigendian):
    try:
        pixels = decode_pixels(*size, encoding, step, bytes(length), is_bigendian)
    except BadFrame:
        return
    assert pixels.shape == (size[1], size[0], 3)
    assert pixels.dtype == np.uint8


@quick
@given(head=st.sampled_from([b'', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff',
                             b'\xff\xd8\xff\xc0\0\x11']),
       body=st.binary(max_size=60), text=st.text(max_size=8))
def test_compressed_bytes_are_refused_before_they_take_room(head, body, text):
    try:
        width, height = compressed_size(head + body)
    except BadFrame:
        return
    if width * height < 1 << 16:
        with pytest.raises(BadFrame):  # too short for any image
            decode_compressed(head + body, text, width, height)


@quick
@given(samples=st.lists(st.tuples(st.integers(-10**10, 10**10),
                                  st.lists(numbers, min_size=13, max_size=13)), max_size=5),
       wanted=st.integers(-10**10, 10**10))
@example([(0, [0.0, 0, 0, 1, 0, 0, 0, 1e300, 0, 0, 0, 0, 1e300])], 10**7)
def test_a_pose_is_rigid_or_absent(samples, wanted):
    buffer, reasons = PoseBuffer(), set()
    for stamp_ns, values in samples:
        values = [0.0, 0.0, 0.0, 1.0, *values[4:]]
        try:
            buffer.insert(stamp_ns, values[:4], values[4:7], values[7:10], values[10:13])
        except BadFrame as bad:
            reasons.add(bad.reason)
    assert reasons <= {'bad_odometry'}
    pose = buffer.lookup(wanted).odom_T_base
    assert pose is None or is_rigid(pose)


@quick
@given(rotation=st.lists(numbers, min_size=4, max_size=4),
       shift=st.lists(numbers, min_size=3, max_size=3),
       frames=st.lists(st.sampled_from(['base', 'mast', 'camera', '/camera', '']), min_size=2,
                       max_size=2))
@example([0.0, 0, 0, 1], [1.0, 2, 3], ['base', '/camera'])
def test_a_mounting_is_rigid_absent_or_refused(rotation, shift, frames):
    transform = SimpleNamespace(
        header=SimpleNamespace(frame_id=frames[0]), child_frame_id=frames[1],
        transform=SimpleNamespace(
            rotation=SimpleNamespace(**dict(zip('xyzw', rotation, strict=True))),
            translation=SimpleNamespace(**dict(zip('xyz', shift, strict=True)))))
    try:
        mounting = find_mounting([transform], 'base', 'camera')
    except DriveError:
        return
    assert mounting is None or is_rigid(mounting)
    if rotation == [0.0, 0, 0, 1] and frames == ['base', '/camera'] and max(map(abs, shift)) < 9:
        np.testing.assert_array_equal(mounting[:3, 3], shift)


def test_another_model_in_the_place_of_the_open_one_is_not_loaded(tmp_path: Path) -> None:
    """A camera of another size would be seen through a model of another scale."""
    path, aside = tmp_path / 'model.onnx', tmp_path / 'aside.onnx'
    write_tiny_model(path)
    engine = Engine(PipelineConfig(model=str(path)))
    engine.acquire((96, 128))
    path.rename(aside)
    for replace in (lambda: write_tiny_model(path), path.unlink):
        replace()
        with pytest.raises(ContractError, match='replaced, changed or removed'):
            engine.acquire((64, 192))
    assert engine.sizes == [(96, 128)]
    aside.rename(path)
    engine.acquire((64, 192))
    for size in engine.sizes:
        engine.release(size)


def test_golden_arrays_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'golden.npz'
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {'descr': '|u1', 'fortran_order': False, 'shape': (1 << 50,)})
    with zipfile.ZipFile(path, 'w') as stored:
        stored.writestr('0_image.npy', header.getvalue())
    with pytest.raises(ContractError, match='golden'):
        read_golden(path, tiny_spec())
    np.savez(path, **{'0_image': np.array([{'a': 1}], object)})  # a pickle
    with pytest.raises(ContractError, match='pickle'):
        read_golden(path, tiny_spec())


@pytest.mark.parametrize('location', ['../secret.bin', '{folder}/secret.bin'])
def test_a_model_cannot_read_files_outside_its_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / 'secret.bin').write_bytes(bytes(64))
    folder = tmp_path / 'models'
    folder.mkdir()
    spec = write_tiny_model(folder / 'model.onnx')
    model = onnx.load(folder / 'model.onnx')
    weights = next(entry for entry in model.graph.initializer if entry.name == 'gain')
    weights.ClearField('raw_data')
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (('location', location.format(folder=tmp_path)), ('offset', '0'),
                       ('length', '4')):
        weights.external_data.add(key=key, value=value)
    (folder / 'model.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(ContractError, match='External data path'):
        load_backend('ort', folder / 'model.onnx', spec, (96, 128), BackendOptions())


@pytest.mark.parametrize('name', ['x' * 5000, '~nobody_at_all/model.onnx', '\0.onnx', '..', '/',
                                  '../../../etc/passwd', '', '/dev/zero'])
def test_a_name_that_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match='there is no model'):
        find_model(name)
