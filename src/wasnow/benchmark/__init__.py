"""Many methods on one dataset: train what is missing, score all alike, write one table.

    plan.py   names, budget, seeds ─> rows, each a recipe to train or weights to take as they are   (no torch)
    pairs.py  a dataset folder ─> pairs to train on, pairs that score and that nobody trains on
    run.py    each row and seed ─> job.py in a process of its own ─> runs/NAME-seedN/result.json, cost.json
    table.py  results ─> rows of numbers ─> table.csv, table.tex, table.json
    page.py   the same ─> index.html

What is finished is told by files alone, so a benchmark can be stopped anywhere, spread over machines, and gone on with.
"""
