"""Runtimes: the files of a model in, one callable out. Importing this package loads no inference engine."""
