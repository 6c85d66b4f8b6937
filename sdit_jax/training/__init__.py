"""Training a network in a run folder.

setup       checks a configuration and makes the parts of its run: data, network, optimizer, durations
step        one optimizer step, a pure function of (state, batch, seed), from `state` and `optimizer`
cadence     what is due after a step
loop        opens the run folder and takes the steps
outputs     pictures and evaluations on the way, by `evaluators`
metrics     logs; `progress` for people
sweep       many runs of one config file
"""
