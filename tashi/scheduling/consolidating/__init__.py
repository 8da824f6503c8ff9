"""Few hosts serve: emptied into the fullest, packed anew, or packed by an exact solver."""
