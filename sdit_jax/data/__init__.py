"""Floor 3, data: labelled images from wherever they are, and batches of them as a function of (seed, step). Knows no model.

sources       one string names a data set: `NAME` or `NAME:REST`
  originals     digits, mnist, fashion_mnist, cifar10 from their original files
  prepared      tfds:...    a tensorflow-datasets folder, without TensorFlow
  folder        folder:...  a person's own files
  pictures      one file as an array
  arrays        npz:...     an array in a file
datasets      what a source gives: images in memory, or examples that are decoded one at a time
transforms    size and channels once, windows and flips at each showing
decoded       examples as images in memory
  cache         arrays that are made once
order         which images a step shows, and how
roads         how batches reach the devices
  batches       from memory
  resident      from the devices' own memory
  streaming     decoded while training runs
preparing     a tensorflow-datasets folder from original archives
  archives      which are found or downloaded, and checked
"""
