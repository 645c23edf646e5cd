"""The report's experiments at full size, from the notebooks' own code: what `labkit reproduce` does.

`lab` reads the notebooks' functions, `experiments` names what can be run, `jobs` runs one of them and
`schedule` several, here or on a Dask cluster; `records` keeps what came out, and `page` writes
docs/RESULTS.md from it.
"""
