"""The Hugging Face Hub: the model card, and what is published and how."""
