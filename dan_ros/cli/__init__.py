"""The `dan-ros` command, one file a subcommand."""
