"""What is left of a model's accuracy when its examples are changed."""
