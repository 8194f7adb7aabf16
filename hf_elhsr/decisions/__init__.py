"""What is fitted on held-out prompts and stored in a head, and the rules that apply it."""
