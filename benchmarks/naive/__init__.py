# SPDX-License-Identifier: Apache-2.0
"""Plain implementations of the same tasks: the baselines of the benchmarks."""
