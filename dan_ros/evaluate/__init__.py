# SPDX-License-Identifier: Apache-2.0
"""Evaluation of models: metrics, figures, report, attention maps."""
