"""Data: labelled images from any source, and batches of them as a function of (seed, step). Knows no network.

sources/      one string names a data set, `NAME` or `NAME:REST`: original files, tensorflow-datasets, folders, arrays
datasets      a data set: images in memory, or examples decoded one at a time
transforms    size and channels of a data set; crops and flips of a batch
decoded       examples decoded into memory
cache         memoized arrays
order         the batch spec of a step
loader        batches on the devices, by one interface
  in_memory     from host memory
  on_device     from the memory of the devices
  streaming     decoded while training runs
"""
