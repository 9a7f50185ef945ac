"""Crash-safe files, private cache folders, and data files of the package."""
