"""Comparison of methods on one dataset: train what is missing, score all rows equally, write one table.

    plan     names, budget, seeds ─> rows: a recipe to train, or given weights   (no torch)
    pairs    a dataset folder ─> training pairs, and test pairs that no row trains on
    run      each row and seed ─> job in a separate process ─> runs/NAME-seedN/result.json, cost.json
    process  a job in a separate process
    machine  description of the machine
    examples images and labels of the shown pairs
    table    results ─> rows of numbers ─> table.csv, table.tex, table.json
    page     the same ─> index.html

Files alone record what is finished, so a benchmark can be interrupted, distributed over machines and continued.
"""
