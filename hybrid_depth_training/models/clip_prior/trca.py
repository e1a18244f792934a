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
Text-guided reverse cross-attention: the sentence asks the image where it speaks of it.

"Single Image Depth Estimation Based on CLIP Language Prior Injection". As printed, all of Q, K and
V have a row per pixel while Q comes from one text vector; spread over the pixels it gives every
pixel the same answer. The default is the reading in which the sentence still tells pixels apart;
``literal`` is the printed one, ``token`` lets every word ask.

``text`` is (B, T, D): row 0 is the feature of the whole sentence, the others (mode ``token``)
those of its words, zeros where it has no more words.
"""
from __future__ import annotations

import math

import torch
from torch import nn

POOLED, LITERAL, TOKEN = 'pooled', 'literal', 'token'
MODES = (POOLED, LITERAL, TOKEN)


class TextGuidedReverseCrossAttention(nn.Module):
    """
    forward(x (B, C, h, w), text (B, T, D)) -> (B, C, h, w): the map, told of the scene.

    ``pooled``: x + gamma (MLP(c) + conv(r)), c = a V what the sentence found in the whole image
    and r = (N a) V what it found at each of the N pixels, with attention a of mean 1/N.
    ``token``: x + gamma conv(F), F = P S V, where S is how the words attend to pixels and P how
    pixels attend to words. gamma starts at 0, hence from the network without text. ``literal``:
    x + MLP(c), the same for all pixels and from the start.
    """

    def __init__(self, channels: int, text_dim: int, width: int = 1024, heads: int = 8,
                 mode: str = POOLED) -> None:
        super().__init__()
        self.mode, self.heads = mode, heads
        self.adapt = nn.Sequential(
            nn.Identity() if text_dim == width else nn.Linear(text_dim, width),
            nn.LayerNorm(width))
        self.image = nn.Conv2d(channels, width, 1)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        if mode != TOKEN:
            self.whole = nn.Sequential(nn.Linear(width, width), nn.GELU(),
                                       nn.Linear(width, channels))
        if mode != LITERAL:
            self.local = nn.Linear(width, channels)
            self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        pixels = self.image(x).flatten(2).transpose(1, 2)  # (B, N, d)
        q = self._heads(self.query(self.adapt(text)))  # (B, m, T, d / m)
        k, v = self._heads(self.key(pixels)), self._heads(self.value(pixels))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, m, T, N)
        a = torch.softmax(scores, dim=-1)
        if self.mode == TOKEN:
            is_word = text.abs().amax(dim=-1) > 0  # (B, T)
            of_words = scores.masked_fill(~is_word[:, None, :, None], float('-inf'))
            p = torch.softmax(of_words, dim=2).transpose(-1, -2)  # (B, m, N, T)
            change = self.local(self._joined(p @ (a @ v)))
        else:
            a = a[:, :, :1]  # the sentence
            change = self.whole(self._joined(a @ v))  # (B, 1, C)
            if self.mode == POOLED:
                gate = pixels.shape[1] * a.transpose(-1, -2)  # (B, m, N, 1), of mean 1
                change = change + self.local(self._joined(gate * v))
        if self.mode == LITERAL:
            return x + change.transpose(1, 2)[..., None]
        return x + (self.gamma * change).transpose(1, 2).unflatten(2, (height, width))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n, d) -> (B, m, n, d / m)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @staticmethod
    def _joined(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(2)
