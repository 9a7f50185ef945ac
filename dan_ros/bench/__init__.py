# SPDX-License-Identifier: Apache-2.0
"""Measures how fast a machine runs this package, and suggests parameters for the node."""
