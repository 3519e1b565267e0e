"""From a data set's fingerprint and a device to a plan: every number of a training, each with its reason."""
