"""Floor 3, data: labelled images from wherever they are, and batches of them as a function of (seed, step). Knows no model.

sources/      one string names a data set, `NAME` or `NAME:REST`: original files, tensorflow-datasets, folders, arrays
datasets      what a source gives: images in memory, or examples that are decoded one at a time
transforms    size and channels once, windows and flips at each showing
decoded       examples as images in memory
  cache         arrays that are made once
order         which images a step shows, and how
roads         how batches reach the devices
  batches       from memory
  resident      from the devices' own memory
  streaming     decoded while training runs
"""
