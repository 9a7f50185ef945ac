# SPDX-License-Identifier: Apache-2.0
"""Other people's classifiers: their descriptors, and wrapping them in our interface."""
