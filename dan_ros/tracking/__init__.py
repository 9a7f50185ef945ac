"""Faces over time: ids by association, smoothed probabilities, stable labels."""
