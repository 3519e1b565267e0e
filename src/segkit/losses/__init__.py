"""Losses: logits and a target to one number to minimise.

The contract of every loss here:

    loss(logits, target)    float32 scalar, computed in float32 whatever the autocast (float64 for float64 logits)
    loss.needs              names of the optional fields of `Target` that it reads; the data module supplies these

The loss owns the nonlinearity. Label -1 is ignored. Value and gradient are finite for every finite input.
"""
