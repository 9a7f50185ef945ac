# SPDX-License-Identifier: Apache-2.0
"""How good a model is, in numbers and pictures, and where in a face it looks."""
