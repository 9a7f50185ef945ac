# SPDX-License-Identifier: Apache-2.0
"""Model files: find them, check them, and read their metadata."""
