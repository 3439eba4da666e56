"""LoRA: the layer, its forward and backward, and putting it into a model."""
