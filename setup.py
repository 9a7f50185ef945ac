# SPDX-License-Identifier: Apache-2.0
"""Adds what pyproject.toml cannot express: where files other than Python modules are installed."""

from glob import glob

from setuptools import setup

setup(
    data_files=[
        (
            'share/dan_ros/models',
            [*glob('models/*.onnx'), *glob('models/*.md'), *glob('models/*.png')],
        ),
        ('share/dan_ros/msg', glob('msg/*.msg')),
        ('share/dan_ros/recipes', glob('recipes/*.yaml')),
        ('share/dan_ros/recipes/adopt', glob('recipes/adopt/*.yaml')),
    ]
)
