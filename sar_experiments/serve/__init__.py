"""Detection over HTTP: an upload or a path in, GeoJSON out, and one page to look at it."""
