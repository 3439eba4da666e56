"""Adapters on disk, in the format of Hugging Face's PEFT."""
