"""Images: from messages and files to arrays."""
