# SPDX-License-Identifier: Apache-2.0
"""The demo: a sample camera, and a subscriber that shows what the node publishes."""
