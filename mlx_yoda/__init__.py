"""mlx-yoda: LoRA fine-tuning of Phi-3 on Apple Silicon, native MLX, PEFT files."""

__version__ = "0.1.0"
