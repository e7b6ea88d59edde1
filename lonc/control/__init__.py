"""
What is seen and steered: the management port's commands, both of its sides, and where it listens.

Nothing here serves a request, or changes more than what a command asks for. AMP takes two
megabytes, so what needs it is imported when it is first asked for.
"""
