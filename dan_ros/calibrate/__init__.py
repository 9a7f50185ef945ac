# SPDX-License-Identifier: Apache-2.0
"""Fit bias, temperature and weights to a few labeled faces, and estimate the gain."""
