# SPDX-License-Identifier: Apache-2.0
"""Classifiers of other projects: their descriptors, and a wrapper with our interface."""
