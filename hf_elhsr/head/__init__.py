"""The reward head: its configuration, its arithmetic, what it reads, and how it is loaded."""
