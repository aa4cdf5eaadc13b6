"""What the native loop does, in plain NumPy: the order of the rows, the steps, the means."""

import numpy as np

MASK = 2**64 - 1


def split_mix(key, position):
    """Number `position` of the stream `key` of SplitMix64, in Python's integers."""
    x = (key + (position + 1) * 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def order_of(rows, seed, epoch):
    """The order of the rows in an epoch: Fisher and Yates, inside out."""
    key = split_mix(seed, epoch)
    order = []
    for row in range(rows):
        other = split_mix(key, row) * (row + 1) >> 64
        order.append(row)
        order[row], order[other] = order[other], row
    return np.array(order)


class Network:
    """Two layers, tanh, softmax and cross-entropy, differentiated by hand."""

    def __init__(self, dtype, sizes=(5, 8, 3), seed=0):
        rng = np.random.default_rng(seed)
        inputs, hidden, classes = sizes
        self.params = {
            "w1": rng.normal(size=(inputs, hidden)).astype(dtype) / 2,
            "b1": np.zeros(hidden, dtype),
            "w2": rng.normal(size=(hidden, classes)).astype(dtype) / 2,
            "b2": np.zeros(classes, dtype),
        }

    @staticmethod
    def loss(params, x, y):
        """The loss as users write it."""
        hidden = np.tanh(x @ params["w1"] + params["b1"])
        scores = hidden @ params["w2"] + params["b2"]
        scores = scores - np.max(scores, axis=1, keepdims=True)
        return np.mean(np.log(np.sum(np.exp(scores), axis=1)) - np.sum(scores * y, axis=1))

    @staticmethod
    def gradient(params, x, y):
        """Its gradient."""
        hidden = np.tanh(x @ params["w1"] + params["b1"])
        scores = hidden @ params["w2"] + params["b2"]
        shares = np.exp(scores - np.max(scores, axis=1, keepdims=True))
        shares /= np.sum(shares, axis=1, keepdims=True)
        d_scores = (shares - y) / x.dtype.type(len(x))
        d_hidden = d_scores @ params["w2"].T * (1 - hidden**2)
        return {"w1": x.T @ d_hidden, "b1": d_hidden.sum(0), "w2": hidden.T @ d_scores, "b2": d_scores.sum(0)}

    @staticmethod
    def accuracy(params, x, y):
        """A metric."""
        hidden = np.tanh(x @ params["w1"] + params["b1"])
        scores = hidden @ params["w2"] + params["b2"]
        return np.mean(np.argmax(scores, axis=1) == np.argmax(y, axis=1))


def data(dtype, rows=50, inputs=5, classes=3, seed=7):
    """Rows that can be learnt."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)).astype(dtype)
    labels = np.argmax(x @ rng.normal(size=(inputs, classes)), axis=1)
    return x, np.eye(classes, dtype=dtype)[labels]


def fit(network, optimizer, rows, epochs, batch, seed=0, first=0, params=None, metrics=()):
    """The loop that `Trainer.fit` is compared with: parameters, and for each epoch the means of loss and metrics."""
    params = params or network.params
    state, history = optimizer.init(params), []
    for epoch in range(first, first + epochs):
        order = np.arange(len(rows[0])) if seed is None else order_of(len(rows[0]), seed, epoch)
        total = np.zeros(1 + len(metrics))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            xy = tuple(array[chosen] for array in rows)
            total += len(chosen) * np.array([float(f(params, *xy)) for f in (network.loss, *metrics)])
            params, state = optimizer.update(params, network.gradient(params, *xy), state)
        history.append(total / len(order))
    return params, np.array(history)
