"""Model files: find them, check them, and read their metadata."""
