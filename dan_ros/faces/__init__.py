# SPDX-License-Identifier: Apache-2.0
"""Geometry of faces: boxes, crops, quality, head pose and camera calibration."""
