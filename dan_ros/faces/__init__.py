"""Geometry of faces: boxes, crops, quality, head pose and camera calibration."""
