"""Data sets: read, checked, converted, augmented, batched; yields NumPy, and never edits a user's file."""
