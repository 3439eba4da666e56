"""The base model: loading, converting, counting, and Phi-3's forward pass."""
