"""The run folder: where everything of one training lies, who holds it, and its checkpoints. Knows no Lightning."""
