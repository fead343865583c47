"""What stands behind each command of `cli.py`: arguments in, one call of a room's door out.

Here, and nowhere else, two rooms meet: `arguments` and `training_arguments` say what a command can
be told; the other files bring the pipeline's tokenizers and templates to the trainer's models.
"""
