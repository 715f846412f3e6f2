"""Whole programs on top of the rest: a watch over cameras, an assistant's view of the road."""
