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
"""Smooth small text in pictures, with what OpenCV has."""
from __future__ import annotations

import math

import cv2
import numpy as np

INK_RGB = (32, 34, 38)
PALE_RGB = (105, 110, 118)
WHITE_RGB = (255, 255, 255)

_FINER = 4  # drawn this much larger and averaged down: OpenCV's own smoothing is uneven
_FONT = cv2.FONT_HERSHEY_DUPLEX
_CAPITAL = 22.0  # pixels of a capital letter at scale 1
_DESCENT = 0.4  # of g, p and y, in capitals


def text_width(text: str, size_px: float) -> int:
    """Return how many pixels wide ``text`` is with capitals ``size_px`` high."""
    return math.ceil(_measure(_drawable(text), size_px) / _FINER)


def shorten(text: str, size_px: float, width: int) -> str:
    """Return ``text``, or as much of its beginning as fits in ``width`` pixels, and dots."""
    if text_width(text, size_px) <= width:
        return text
    while text and text_width(text + '...', size_px) > width:
        text = text[:-1]
    return text + '...'


def write(picture: np.ndarray, text: str, x: float, y: float, size_px: float,
          colour: tuple[int, int, int] = INK_RGB, *, bold: bool = False,
          halo: tuple[int, int, int] | None = None) -> None:
    """
    Write one line into ``picture`` (H, W, 3) uint8, what falls outside is cut.

    ``x``, ``y`` is the top left of a capital letter, whose height is ``size_px``; ``halo`` is the
    colour of a rim that lifts the text off what is under it.
    """
    text = _drawable(text)
    pad = math.ceil(size_px)
    width = math.ceil(_measure(text, size_px) / _FINER) + 2 * pad
    height = math.ceil(size_px * (1 + _DESCENT)) + 2 * pad
    origin = (pad * _FINER, round((pad + size_px) * _FINER))
    stroke = max(1, round(size_px * _FINER / (6 if bold else 9)))
    for tint, thickness in ((halo, stroke + round(size_px * _FINER * 0.4)), (colour, stroke)):
        if tint is not None:
            mask = np.zeros((height * _FINER, width * _FINER), np.uint8)
            cv2.putText(mask, text, origin, _FONT, size_px * _FINER / _CAPITAL, 255, thickness,
                        cv2.LINE_AA)
            small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
            _blend(picture, small, round(x) - pad, round(y) - pad, tint)


def _drawable(text: str) -> str:
    return text.encode('ascii', 'replace').decode()  # the font has no other letters


def _measure(text: str, size_px: float) -> int:
    return cv2.getTextSize(text, _FONT, size_px * _FINER / _CAPITAL, 1)[0][0]


def _blend(picture: np.ndarray, mask: np.ndarray, x: int, y: int,
           colour: tuple[int, int, int]) -> None:
    left, top = max(x, 0), max(y, 0)
    right = min(x + mask.shape[1], picture.shape[1])
    bottom = min(y + mask.shape[0], picture.shape[0])
    if right <= left or bottom <= top:
        return
    share = mask[top - y:bottom - y, left - x:right - x, None] / np.float32(255)
    window = picture[top:bottom, left:right]
    window[:] = np.rint(window * (1 - share) + np.array(colour, np.float32) * share)
