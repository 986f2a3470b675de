"""Finding objects in images: a small network of the YOLO kind, its loss, and the mean average precision."""
