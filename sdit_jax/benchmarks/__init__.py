"""Speed on the machine at hand, with the conditions of each measurement."""
