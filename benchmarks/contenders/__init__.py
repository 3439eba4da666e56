"""The programs that are measured against each other, each behind the same small interface."""
