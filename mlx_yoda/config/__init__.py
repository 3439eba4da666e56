"""Configuration: the schema, reading it, checking it."""

from mlx_yoda.config.schema import Config, DataConfig, LoraConfig, ModelConfig, TrainConfig

__all__ = ["Config", "DataConfig", "LoraConfig", "ModelConfig", "TrainConfig"]
