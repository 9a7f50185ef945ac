# SPDX-License-Identifier: Apache-2.0
"""Images: from messages and files to arrays."""
