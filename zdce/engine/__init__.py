"""How curves become pixels fast."""
