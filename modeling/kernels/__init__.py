"""Pieces of a training step as single GPU kernels. Chosen by `compute.kernels`; see select.py."""
