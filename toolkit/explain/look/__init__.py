"""Pictures of what a trained model sees: a module for each kind of data, one for what is wrong most."""

KINDS = ("filters", "maps", "gradcam", "attributions", "attention", "sound", "mistakes")
"""What `look` can draw, in this order; a model has some of them."""
