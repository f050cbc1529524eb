"""What a run of the one training loop may learn.

An objective is one file here with one class, a subclass of `Objective`
(`vitc.training.objectives.objective`), which says what is built, what a step's losses are, what is
measured after an epoch and what is written; and options that extend `RunOptions`. The loop
(`vitc.training.loop.learn`) does the rest: order, optimizer steps, schedule, devices and processes,
progress, the best epoch, and the state to resume from. docs/training.md has an example.
"""
