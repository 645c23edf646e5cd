"""What an instructor runs: release the notebooks, grade a class. Needs the extra `labkit[grade]`.

The only place that imports nbgrader, nbclient and sqlalchemy. It imports labkit, never the other way.
"""
