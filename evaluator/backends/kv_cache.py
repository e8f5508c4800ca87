"""A key-value cache that costs little to extend by a token, and that rows may leave and join.

`DynamicCache` copies all keys and values at every token. Here they lie in buffers with room for the tokens to come, so
that a token costs its own keys and values only.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM_TOKENS = 32
"""Tokens that fit in before the buffers are copied to longer ones."""


class RoomyLayer(DynamicLayer):
    """Keys and values [rows, heads, tokens, width] of one layer; they are views of the filled part of the buffers."""

    _buffers: tuple[Tensor, Tensor]
    _tokens: int

    # Any: what transformers passes to every kind of layer
    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append new tokens; gives all keys and values."""
        new = key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._hold(key_states[:, :, :0], value_states[:, :, :0], tokens=0)
        start, end = self._tokens, self._tokens + new
        keys, values = self._buffers
        if end > keys.shape[2]:
            longer = (0, 0, 0, new + ROOM_TOKENS)
            keys, values = pad(keys[:, :, :start], longer), pad(values[:, :, :start], longer)
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        return self._hold(keys, values, tokens=end)

    def select(self, rows: Tensor, *, first: int = 0) -> None:
        """Keep these rows, and the tokens from `first` on."""
        keys, values = (buffer[rows, :, first:] for buffer in self._buffers)
        self._hold(keys, values, tokens=self._tokens - first)

    def copy(self, rows: Tensor) -> RoomyLayer:
        """A layer of these rows, some perhaps several times."""
        other = copy(self)
        other.select(rows)
        return other

    def join(self, other: RoomyLayer) -> None:
        """Add the rows of `other` below; zeros go before the tokens of the shorter ones."""
        tokens = max(self._tokens, other._tokens)
        keys, values = (
            torch.cat(
                [_lengthened(mine[:, :, : self._tokens], tokens), _lengthened(its[:, :, : other._tokens], tokens)]
            )
            for mine, its in zip(self._buffers, other._buffers, strict=True)
        )
        self._hold(keys, values, tokens=tokens)

    def _hold(self, keys: Tensor, values: Tensor, *, tokens: int) -> tuple[Tensor, Tensor]:
        """Use these buffers, whose first `tokens` are filled; gives the filled part."""
        self._buffers, self._tokens = (keys, values), tokens
        self.keys, self.values = filled = keys[:, :, :tokens], values[:, :, :tokens]
        return filled


def _lengthened(states: Tensor, tokens: int) -> Tensor:
    """Zeros before the tokens until there are `tokens` of them, and room after them."""
    return pad(states, (0, 0, tokens - states.shape[2], ROOM_TOKENS))


class RoomyCache(Cache):
    """A `RoomyLayer` for each layer of a model."""

    @classmethod
    def of(cls, config: PreTrainedConfig) -> RoomyCache:
        """An empty cache of a model."""
        return cls(layers=[RoomyLayer() for _ in DynamicCache(config=config).layers])

    @staticmethod
    def fits(config: PreTrainedConfig) -> bool:
        """Whether all layers attend to all tokens; others count distances in places, which padding would stretch."""
        return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)

    def select(self, rows: Tensor, *, first: int = 0) -> None:
        """Keep these rows, and the tokens from `first` on."""
        for layer in self._roomy():
            layer.select(rows, first=first)

    def copy(self, rows: Tensor) -> RoomyCache:
        """A cache of these rows, some perhaps several times."""
        return RoomyCache(layers=[layer.copy(rows) for layer in self._roomy()])

    def join(self, other: RoomyCache) -> None:
        """Add the rows of `other` below."""
        for mine, its in zip(self._roomy(), other._roomy(), strict=True):
            mine.join(its)

    def _roomy(self) -> list[RoomyLayer]:
        return [layer for layer in self.layers if isinstance(layer, RoomyLayer)]
