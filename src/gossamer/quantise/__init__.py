"""Retraining for int8: layers that are trained with their weights and inputs rounded as int8 has them."""
