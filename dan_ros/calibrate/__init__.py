# SPDX-License-Identifier: Apache-2.0
"""Fit a bias per class and a temperature to a few labeled faces, and estimate the gain."""
