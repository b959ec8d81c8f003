"""A run: kept results, stages, where images come from, and what they show."""
