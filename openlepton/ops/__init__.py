"""Arithmetic on boxes and geometry: pure NumPy, no state."""
