"""What every adapted model is: its interface, its task, its scores, and how it is saved and shared."""
