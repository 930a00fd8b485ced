"""Figures, and the names of users' columns, classes and channels in them.

`names` makes a name fit for a plot, `figure` has the `Figure` that every picture is drawn on, `fonts` finds
what its texts need. Only `names` can be imported without matplotlib.
"""
