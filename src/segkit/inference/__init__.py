"""From a network that sees patches to logits of a whole image."""
