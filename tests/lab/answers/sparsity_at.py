# ruff: noqa
# Answers to notebook 03's sparsity_at. Each runs in the notebook's own namespace.

# === right: a list of steps by numpy
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    steps = np.linspace(target / ramp_epochs, target, ramp_epochs)
    return steps[min(epoch, ramp_epochs - 1)]

# === right: two cases
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    print("epoch", epoch)
    if epoch >= ramp_epochs - 1:
        return target
    step = target / ramp_epochs
    return step * (epoch + 1)

# === right: a 0-d tensor
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    done = torch.tensor((epoch + 1) / ramp_epochs, dtype=torch.float64).clamp(max=1.0)
    return target * done

# === right: summed up step by step
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    sparsity = 0.0
    for _ in range(epoch + 1):
        sparsity = min(sparsity + target / ramp_epochs, target)
    return sparsity

# === right: numpy's interpolation
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return float(np.interp(epoch + 1, [0, ramp_epochs], [0.0, target]))

# === right: a float32 tensor, and an integer where it is one
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    if epoch + 1 >= ramp_epochs:
        return int(target) if target == int(target) else target
    return np.float64(target) * (epoch + 1) / ramp_epochs

# === wrong: the ramp starts at 0 percent
# hint: epochs are counted from 0
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min(epoch, ramp_epochs) / ramp_epochs

# === wrong: from 0 to the target in ramp_epochs values
# hint: before epoch 0 the first step is due
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min(epoch, ramp_epochs - 1) / max(1, ramp_epochs - 1)

# === wrong: a fraction instead of percent
# hint: not a share of 1
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target / 100 * min(epoch + 1, ramp_epochs) / ramp_epochs

# === wrong: grows beyond the target
# hint: grows no further
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * (epoch + 1) / ramp_epochs

# === wrong: stops at 100 percent instead of the target
# hint: stays at the target
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return min(target * (epoch + 1) / ramp_epochs, 100.0)

# === wrong: 8 percent a step, whatever the arguments
# hint: the defaults only
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return min(8.0 * (epoch + 1), 80.0)

# === wrong: steps of 8 percent up to the target, the ramp's length ignored
# hint: the defaults only
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return min(8.0 * (epoch + 1), target)

# === wrong: a ramp to 80 percent, the target ignored
# hint: the defaults only
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return 80.0 * min(epoch + 1, ramp_epochs) / ramp_epochs

# === wrong: one epoch too long
# hint: one epoch too late
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min((epoch + 1) / (ramp_epochs + 1), 1.0)

# === wrong: the cubic ramp
# hint: a straight line
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    t = min((epoch + 1) / ramp_epochs, 1.0)
    return target * (1 - (1 - t) ** 3)

# === wrong: whole percents
# hint: do not round
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target // ramp_epochs * min(epoch + 1, ramp_epochs)

# === wrong: rounded
# hint: do not round
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return round(target * min(epoch + 1, ramp_epochs) / ramp_epochs)

# === wrong: 0 after the ramp
# hint: has to be returned for those epochs too
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * (epoch + 1) / ramp_epochs if epoch < ramp_epochs else 0.0

# === wrong: nothing after the ramp
# hint: has to be returned for those epochs too
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        return target * (epoch + 1) / ramp_epochs

# === wrong: printed, not returned
# hint: what is printed is not returned
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    print(target * min(epoch + 1, ramp_epochs) / ramp_epochs)

# === wrong: counts its calls instead of the epochs
# hint: no counter
calls = 0
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    global calls
    calls += 1
    return target * min(calls, ramp_epochs) / ramp_epochs

# === wrong: the dense share instead of the zeros
# hint: the share of weights kept
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return 100.0 - target * min(epoch + 1, ramp_epochs) / ramp_epochs

# === wrong: the whole schedule as a list
# hint: not the whole schedule
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return [target * min(e + 1, ramp_epochs) / ramp_epochs for e in range(epoch + 1)]

# === wrong: a text with a percent sign
# hint: the number itself, not a text
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return f"{target * min(epoch + 1, ramp_epochs) / ramp_epochs}%"

# === wrong: the same share of what is left at each step
# hint: every step adds the same
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    left = (1 - target / 100) ** (min(epoch + 1, ramp_epochs) / ramp_epochs)
    return 100 * (1 - left)
