# SPDX-License-Identifier: Apache-2.0
"""Faces over time: ids by association, smoothed probabilities, stable labels."""
