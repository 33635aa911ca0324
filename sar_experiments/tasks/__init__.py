"""What a command does: one module per task, each with a function ``run``.

A task introduces the rooms to each other; the work is done in the rooms.
"""
