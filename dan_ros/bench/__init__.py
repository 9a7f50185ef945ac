"""Measures how fast a machine runs this package, and suggests parameters for the node."""
