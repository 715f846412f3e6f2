"""Frames in, tracks out: streams that do not lie, trackers, and what is counted and measured on tracks."""
