"""What a person sees of a run: banner, curves, overlays, report."""
