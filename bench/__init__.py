"""How fast the cell is: measured on a running cell as its users see it, beside a floor or a peer measured in the same minute.

Nothing here is a test: a figure depends on the machine. A ratio to a floor says what the cell itself costs.
"""
