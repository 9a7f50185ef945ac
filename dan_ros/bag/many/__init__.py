# SPDX-License-Identifier: Apache-2.0
"""Convert many bags into one result folder, by several processes or on a Ray cluster."""
