# SPDX-License-Identifier: Apache-2.0
"""A local web page that shows faces, expressions and settings while they change."""
