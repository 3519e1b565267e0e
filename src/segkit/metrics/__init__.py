"""Numbers from masks: overlap, lesions, the composite score, and the uncertainty of a mean."""
