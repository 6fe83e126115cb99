"""Boosted trees as a graph of plain tensor operations, so that they run wherever the network runs.

For each tree: which of its conditions hold (Gather, LessOrEqual), and which leaf's path agrees with all of them (a
matrix product with +1 for a leaf left of a node, -1 right of it). Exact: LightGBM's own answers to rounding.
"""

import numpy as np
import torch
from torch import nn


def below(threshold):
    """The largest f32 that is no more than the threshold: x <= threshold then means the same in f32."""
    rounded = np.float32(threshold)
    return rounded if rounded <= threshold else np.nextafter(rounded, np.float32(-np.inf))


class Trees(nn.Module):
    """x (n, features) -> mean raw score of the boosters (n,)."""

    def __init__(self, trees, nodes, leaves):
        super().__init__()
        self.nodes = nodes
        self.register_buffer("feature", torch.zeros(trees * nodes, dtype=torch.long))
        self.register_buffer("threshold", torch.full((trees * nodes,), -1e30))
        self.register_buffer("side", torch.zeros(trees, nodes, leaves))
        self.register_buffer("lefts", torch.full((trees, leaves), 1e3))
        self.register_buffer("value", torch.zeros(trees, leaves))

    @staticmethod
    def of(boosters):
        trees = [t["tree_structure"] for b in boosters for t in b.dump_model()["tree_info"]]
        leaves = max(t["num_leaves"] for b in boosters for t in b.dump_model()["tree_info"])
        model = Trees(len(trees), leaves - 1, leaves)
        for number, tree in enumerate(trees):
            model.fill(number, tree, [], len(boosters))
        return model

    def fill(self, tree, node, path, share):
        if "leaf_value" in node:
            leaf = node.get("leaf_index", 0)
            for at, side in path:
                self.side[tree, at, leaf] = side
            self.lefts[tree, leaf] = sum(side > 0 for _, side in path)
            self.value[tree, leaf] = node["leaf_value"] / share
            return
        at = node["split_index"]
        assert node["decision_type"] == "<="
        self.feature[tree * self.nodes + at] = node["split_feature"]
        self.threshold[tree * self.nodes + at] = float(below(node["threshold"]))
        self.fill(tree, node["left_child"], path + [(at, 1.0)], share)
        self.fill(tree, node["right_child"], path + [(at, -1.0)], share)

    def forward(self, x):
        trees = self.side.shape[0]
        holds = (x.index_select(1, self.feature) <= self.threshold).to(x.dtype)
        agreed = torch.matmul(holds.reshape(-1, trees, 1, self.nodes), self.side).reshape(-1, trees, self.side.shape[2])
        return ((agreed > self.lefts - 0.5).to(x.dtype) * self.value).sum((1, 2))
