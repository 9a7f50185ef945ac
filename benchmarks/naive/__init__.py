"""What people would write themselves, written fairly: the baselines of the benchmarks."""
