# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Scene captions of recordings: what a person would say of a scene, from a table or its label.

A table is a YAML mapping from patterns of ``RECORDING/FRAME`` (* matches anything, the first that
fits counts) to captions. The published results use one caption a scene, made from the data set's
scene labels.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
import functools
from pathlib import Path

import yaml

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.data import DepthSample, Recording

# the 27 scene types of NYU Depth v2
NYU_SCENES = (
    'basement', 'bathroom', 'bedroom', 'bookstore', 'cafe', 'classroom', 'computer_lab',
    'conference_room', 'dinette', 'dining_room', 'exercise_room', 'foyer', 'furniture_store',
    'home_office', 'home_storage', 'indoor_balcony', 'kitchen', 'laundry_room', 'living_room',
    'office', 'office_kitchen', 'playroom', 'printer_room', 'reception_room', 'student_lounge',
    'study', 'study_room')
OTHER_SCENES = ('office_corridor', 'break_room', 'warehouse', 'garage', 'factory_hall', 'garden',
                'city_street', 'residential_street', 'country_road', 'motorway', 'parking_lot',
                'campus')
NEUTRAL = 'a scene'


def caption_of(label: str) -> str:
    """Turn a scene label, such as office_kitchen, into a caption: an office kitchen."""
    words = label.replace('_', ' ').strip()
    return f'{"an" if words[:1].lower() in "aeiou" else "a"} {words}' if words else ''


VOCABULARY = tuple(caption_of(label) for label in (*NYU_SCENES, *OTHER_SCENES))


def read_captions(path: Path) -> dict[str, str]:
    """Read a table of captions. Raises ConfigError where it is no mapping of text to text."""
    try:
        table = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'the captions {path} cannot be read: {error}') from error
    if not isinstance(table, dict) or not all(
            isinstance(text, str) and text for pair in table.items() for text in pair):
        raise ConfigError(f'{path} is no table of captions; expected PATTERN: CAPTION lines')
    return table


def captioned(recording: Recording, table: Mapping[str, str]) -> Recording:
    """Return ``recording`` whose frames have the captions of ``table``."""
    return replace(recording, read=functools.partial(_read, recording.read, recording.name,
                                                     dict(table)))


def _read(read: functools.partial[DepthSample], recording: str, table: dict[str, str],
          index: int) -> DepthSample:
    sample = read(index)
    name = f'{recording}/{sample.name}'
    for pattern, caption in table.items():
        if fnmatchcase(name, pattern):
            return replace(sample, caption=caption)
    raise ConfigError(f'no caption fits {name}; known patterns: {", ".join(table)}. Add one, such '
                      "as '*', to the table of captions")
