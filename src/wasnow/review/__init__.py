"""Pages in a browser on this machine: review the polygons of a result, label the points of a sample. Needs [review]."""
