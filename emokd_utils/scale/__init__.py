"""Real data and larger machines: converters, a large model as writer, plans, archives."""
