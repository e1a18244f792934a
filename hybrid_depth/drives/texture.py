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
"""Procedural patterns in metres that fade out before they alias."""
from __future__ import annotations

import functools

import cv2
import numpy as np

_TEXELS = 4  # per lattice cell of the noise table
_TABLE = 512


@functools.lru_cache(maxsize=1)
def _noise_table() -> np.ndarray:
    """Smooth tileable noise, (512, 512) float32, mean 0, about -1..1."""
    lattice = np.random.default_rng(7).uniform(-1, 1, (_TABLE // _TEXELS,) * 2)
    wrapped = np.pad(lattice, 4, mode='wrap').astype(np.float32)
    smooth = cv2.resize(wrapped, None, fx=_TEXELS, fy=_TEXELS, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(smooth[4 * _TEXELS:-4 * _TEXELS, 4 * _TEXELS:-4 * _TEXELS])


def noise(u_m: np.ndarray, v_m: np.ndarray, wavelength_m: float,
          footprint_m: np.ndarray) -> np.ndarray:
    """
    Return smooth noise, (n,) float32, in about -1..1 with features of ``wavelength_m``.

    It fades to 0 where a pixel covers ``footprint_m`` near the wavelength or more.
    """
    n = len(u_m)
    if n == 0:
        return np.zeros(0, np.float32)
    rows = -(-n // 1024)
    # the offset decorrelates octaves, which all read the same table
    scale, offset = _TEXELS / wavelength_m, 97.3 * np.log(wavelength_m)
    maps = np.zeros((2, rows * 1024), np.float32)
    maps[0, :n] = np.remainder(u_m * scale + offset, _TABLE)
    maps[1, :n] = np.remainder(v_m * scale - offset, _TABLE)
    values = cv2.remap(_noise_table(), maps[0].reshape(rows, 1024), maps[1].reshape(rows, 1024),
                       cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).ravel()[:n]
    return values * np.clip((wavelength_m / np.maximum(footprint_m, 1e-6) - 1) / 2, 0, 1)


def fractal(u_m: np.ndarray, v_m: np.ndarray, longest_m: float, octaves: int,
            footprint_m: np.ndarray, gain: float = 0.6) -> np.ndarray:
    """Return noise summed over ``octaves`` halvings of the wavelength, (n,), about -1..1."""
    total = np.zeros(len(u_m), np.float32)
    amplitude = 1.0
    for octave in range(octaves):
        total += amplitude * noise(u_m, v_m, longest_m / 2 ** octave, footprint_m)
        amplitude *= gain
    return total * ((1 - gain) / (1 - gain ** octaves))


def band(x: np.ndarray, low: np.ndarray | float, high: np.ndarray | float,
         footprint: np.ndarray | float) -> np.ndarray:
    """Return how much of a pixel's ``footprint`` around x lies in low..high, 0..1."""
    inverse = 1 / np.maximum(footprint, 1e-6)
    return np.maximum(np.minimum((x - low) * inverse + 0.5, 1)
                      - np.maximum(np.minimum((x - high) * inverse + 0.5, 1), 0), 0)


def cells(x: np.ndarray, period: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell number (int64) and the position within it, 0..period."""
    number = np.floor(x / period)
    return number.astype(np.int64), x - number * period


def hash01(*keys: np.ndarray) -> np.ndarray:
    """Return a repeatable number in 0..1 for integer keys."""
    h = np.zeros(np.broadcast(*keys).shape, np.uint32)
    for key in keys:
        h = (h ^ np.asarray(key).astype(np.int64).astype(np.uint32)) * np.uint32(0x9E3779B1)
        h ^= h >> np.uint32(15)
    h *= np.uint32(0x85EBCA6B)
    return (h >> np.uint32(8)) / np.float32(1 << 24)
