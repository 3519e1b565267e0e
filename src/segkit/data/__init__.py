"""Cases, files, labels, roles, and what turns them into batches."""
