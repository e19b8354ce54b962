"""Published implementations: their parameter names and the conversion of their weights."""
