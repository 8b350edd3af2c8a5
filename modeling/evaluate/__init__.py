"""Measures a trained network on held-out shards: a DiT's loss by noise level, a VAE's fidelity.

Nothing is drawn by turn: samples, noise and sigmas follow from the seed and the samples' keys, so
two checkpoints see the same and the same checkpoint gives the same figures.
"""
