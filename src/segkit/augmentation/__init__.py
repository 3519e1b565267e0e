"""Augmentation of a batch on its device: parameters drawn from a key, then applied by pure functions."""
