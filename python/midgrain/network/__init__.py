"""Looking into a network while it runs: its layers' outputs, their gradients, and parts of a pass run alone."""

__all__: list[str] = []
