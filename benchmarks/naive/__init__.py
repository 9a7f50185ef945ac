"""Plain implementations of the same tasks: the baselines of the benchmarks."""
