# SPDX-License-Identifier: Apache-2.0
"""Crash-safe files, private cache folders, and data files of the package."""
