# SPDX-License-Identifier: Apache-2.0
"""A server of the Open Inference Protocol: client, model check, fallback."""
