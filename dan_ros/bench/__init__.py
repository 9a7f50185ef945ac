"""How fast a machine runs this package: ways to do the same, measured in turns."""
