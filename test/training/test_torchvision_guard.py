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
"""The guard acts on one error of torchvision and on no other."""
import sys
import types

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training import torchvision_guard  # noqa: E402
from hybrid_depth_training.torchvision_guard import guarded_import  # noqa: E402

NMS = 'operator torchvision::nms does not exist'


@pytest.fixture
def library(monkeypatch):
    """Stand in for torch.library.Library, note what is defined, forget torchvision meanwhile."""
    for name in [m for m in sys.modules if m.split('.')[0] == 'torchvision']:
        monkeypatch.delitem(sys.modules, name)
    defined = []

    class Library:

        def __init__(self, namespace, kind):
            defined.append((namespace, kind))

        def define(self, schema):
            defined.append(schema.split('(')[0])

    monkeypatch.setattr(torchvision_guard.torch.library, 'Library', Library)
    monkeypatch.setattr(torchvision_guard, '_libraries', [])
    return defined


def imports(monkeypatch, *outcomes):
    """Let importing torchvision have these outcomes one after another; other imports work."""
    left = list(outcomes)
    tried = []

    def import_module(name):
        tried.append(name)
        outcome = left.pop(0) if name == 'torchvision' else types.ModuleType(name)
        if isinstance(outcome, Exception):
            sys.modules['torchvision.half'] = types.ModuleType('torchvision.half')
            raise outcome
        return outcome

    monkeypatch.setattr(torchvision_guard, 'import_module', import_module)
    return tried


def test_does_nothing_where_torchvision_works(library, monkeypatch):
    tried = imports(monkeypatch, types.ModuleType('torchvision'))
    assert guarded_import('timm').__name__ == 'timm'
    assert tried == ['torchvision', 'timm']
    assert library == []


def test_does_nothing_where_torchvision_is_absent(library, monkeypatch):
    imports(monkeypatch, ModuleNotFoundError('torchvision'))
    assert guarded_import('timm').__name__ == 'timm'
    assert library == []


def test_declares_the_two_operators_on_the_very_error(library, monkeypatch):
    tried = imports(monkeypatch, RuntimeError(NMS), types.ModuleType('torchvision'))
    assert guarded_import('timm').__name__ == 'timm'
    assert tried == ['torchvision', 'torchvision', 'timm']
    assert library == [('torchvision', 'DEF'), 'nms', 'qnms']
    assert 'torchvision.half' not in sys.modules  # what the failed import left is gone
    assert len(torchvision_guard._libraries) == 1


def test_leaves_every_other_error_of_torchvision_alone(library, monkeypatch):
    imports(monkeypatch, RuntimeError('operator torchvision::roi_align does not exist'))
    with pytest.raises(RuntimeError, match='roi_align'):
        guarded_import('timm')
    sys.modules.pop('torchvision.half')
    assert library == []


def test_packages_that_need_torchvision_are_importable_here():
    assert guarded_import('timm').create_model
    assert guarded_import('open_clip').get_tokenizer
