"""Names to folders, verified downloads, and the conversion of foreign weights."""
