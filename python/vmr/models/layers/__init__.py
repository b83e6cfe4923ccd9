"""What the trainable systems share: masks, projections, attention over padded rows, set prediction."""
