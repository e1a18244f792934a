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
Import packages that need torchvision where torchvision was built for another torch.

The wheel of torchvision on PyPI is built for CUDA. Beside a CPU build of torch its compiled part
does not load, and then already ``import torchvision`` fails, because it describes an operator that
nobody defined (pytorch/vision issues 9077 and 9085). timm and open_clip import torchvision at
their top although nothing used here needs a compiled operator of it.
"""
from __future__ import annotations

from importlib import import_module
import sys
from types import ModuleType

import torch

_SIGNATURE = 'operator torchvision::nms does not exist'
_OPERATORS = ('nms', 'qnms')
_libraries: list[torch.library.Library] = []  # one that is collected takes its operators away


def guarded_import(name: str) -> ModuleType:
    """
    Import the module ``name``, after torchvision has been made importable.

    Where ``import torchvision`` fails for the reason above, its two missing operators are declared
    (without a body: calling them raises) and it is imported again. Anything else, a torchvision
    that works, one that is absent, one that is broken otherwise, is left as it is.
    """
    try:
        import_module('torchvision')
    except ModuleNotFoundError:
        pass  # who needs it says so
    except RuntimeError as error:
        if _SIGNATURE not in str(error):
            raise
        for module in [m for m in sys.modules if m.split('.')[0] == 'torchvision']:
            del sys.modules[module]
        library = torch.library.Library('torchvision', 'DEF')
        for operator in _OPERATORS:
            library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold)'
                           ' -> Tensor')
        _libraries.append(library)
        import_module('torchvision')
    return import_module(name)
