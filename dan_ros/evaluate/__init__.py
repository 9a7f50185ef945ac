"""How good a model is, in numbers and pictures, and where in a face it looks."""
