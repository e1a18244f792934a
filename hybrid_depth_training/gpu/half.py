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
Half precision of a torch network, decided by its weights and not by autocast.

As in hybrid_depth.runtime.precision: a trained layer computes in the type of its weights, all else
in the types that come to it. So geometry, which follows from the camera matrix and the poses,
stays in single precision until a layer looks at it; autocast would round its products, and
look-ups would land in the wrong cell. There are fewer casts too: what is half stays half from
layer to layer.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name
from torch.overrides import TorchFunctionMode

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
# input and weight are the first two arguments
_BY_WEIGHT = frozenset({F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.linear})
# a batch norm mixes types by itself
_NORMS = frozenset({F.layer_norm, F.group_norm})
_PRODUCTS = frozenset({torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__,
                       torch.Tensor.__rmatmul__, torch.bmm, torch.Tensor.bmm,
                       F.scaled_dot_product_attention})
# Depths that must not be rounded by the layer that says them: the single frame's, around which is
# looked again, and the result where it is said by a layer.
_SAID = ('single_depth', 'depth')
_MATCHED = 'features'


class TypedByWeights(TorchFunctionMode):
    """
    Give every layer its input in the type of its weights, and a product factors of one type.

    A product without weights is in half precision where one of its factors is: it is of features
    then. Within ``torch.compile`` too.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _BY_WEIGHT:
            args = (args[0].to(args[1].dtype), *args[1:])
        elif func in _NORMS:
            weight = kwargs['weight'] if 'weight' in kwargs else args[2]
            if weight is not None:
                args = (args[0].to(weight.dtype), *args[1:])
        elif func in _PRODUCTS:
            factors = 3 if func is F.scaled_dot_product_attention else 2
            if any(x.dtype == torch.float16 for x in args[:factors]):
                args = (*(x.half() for x in args[:factors]), *args[factors:])
        elif func is F.grid_sample:  # by coordinates, which are never rounded
            args = (args[0].float(), args[1].float(), *args[2:])
        return func(*args, **kwargs)


def halve(network: nn.Module, exact: Collection[nn.Module] = ()) -> None:
    """Round the weights of the layers but for ``exact`` to half precision; norms stay as well."""
    kept = {id(module) for module in exact}
    for module in network.modules():
        if isinstance(module, _LAYERS) and id(module) not in kept:
            module.half()


def exact_layers(network: nn.Module, feed: Sequence[torch.Tensor]) -> list[nn.Module]:
    """
    Return the layers of ``network`` that stay in single precision, called as ``network(*feed)``.

    Those that say a depth, and those on the way to the features that frames are matched by: where
    an image is nearly flat, what is left of it to match is of the order of a rounding error. They
    are a tenth of the layers and little of the work.
    """
    called: list[nn.Module] = []
    hooks = [module.register_forward_hook(lambda module, *_: called.append(module))
             for module in network.modules() if isinstance(module, _LAYERS)]
    weights = [module.weight for module in network.modules() if isinstance(module, _LAYERS)]
    trainable = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            outputs = named_outputs(network, network(*feed))
            found = [_leading_to(outputs[name], called)[-1:] for name in _SAID if name in outputs]
            if _MATCHED in outputs:
                found.append(_leading_to(outputs[_MATCHED], called))
    finally:
        for hook in hooks:
            hook.remove()
        for weight, was in zip(weights, trainable, strict=True):
            weight.requires_grad_(was)
    return list(dict.fromkeys(layer for layers in found for layer in layers))


def _leading_to(output: torch.Tensor, layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Return those of ``layers``, in order, whose weights ``output`` depends on."""
    layers = list(layers)
    if not output.requires_grad:
        return []
    gradients = torch.autograd.grad(output.float().sum(), [layer.weight for layer in layers],
                                    retain_graph=True, allow_unused=True)
    return [layer for layer, gradient in zip(layers, gradients, strict=True)
            if gradient is not None]


def named_outputs(network: nn.Module, outputs: Any) -> Mapping[str, torch.Tensor]:
    """Return the outputs by name; of a network that names none the first, as ``depth``."""
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    names = getattr(network, 'outputs', ('depth',))
    return dict(zip(names, outputs, strict=False))
