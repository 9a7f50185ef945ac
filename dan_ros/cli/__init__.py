# SPDX-License-Identifier: Apache-2.0
"""The `dan-ros` command, one file per subcommand."""
