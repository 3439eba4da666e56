"""Recipes: what the commands do, each from beginning to end."""
