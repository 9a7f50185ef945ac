# SPDX-License-Identifier: Apache-2.0
"""Files with which an inference server runs the models of this package."""
