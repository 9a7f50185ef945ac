"""Evaluation of models: metrics, figures, report, attention maps."""
