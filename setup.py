"""Adds what pyproject.toml can't say: the files outside Python, where the package looks for them."""

from glob import glob

from setuptools import setup

setup(
    data_files=[
        ('share/dan_ros/models', [*glob('models/*.onnx'), *glob('models/*.md')]),
        ('share/dan_ros/recipes', glob('recipes/*.yaml')),
    ]
)
