"""Recorded bags in, bags with expressions out, without ROS."""
