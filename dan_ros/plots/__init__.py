# SPDX-License-Identifier: Apache-2.0
"""Plots of the package in one style, drawn with matplotlib without a window.

Each function takes plain numbers and returns a `Figure`; `style.encode` makes a PNG, PDF or SVG of
it. Importing a module of this folder imports matplotlib.
"""
