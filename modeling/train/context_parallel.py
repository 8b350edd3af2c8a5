"""Divides the tokens of a DiT over processes: Ulysses (arXiv:2309.14509), outside the model.

Every process holds a part of the image tokens and all text tokens, whose work is repeated. For
attention an all-to-all trades the divided tokens for divided heads and back; where the heads do not
divide, keys and values are gathered instead. The output is gathered behind the last block, so each
process has the whole loss: the mean of the gradients over the processes is the gradient.

Shape suffixes: B batch, H heads, N tokens, E channels of a head, D width, P processes.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.dit import VideoDiT
from modeling.dit_layers import DoubleBlock, SingleBlock
from modeling.rope import RopeTable


class _Exchange(torch.autograd.Function):
    """Row p of the input goes to process p; row p of the output came from it."""

    @staticmethod
    def forward(ctx: Any, x_P: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_to_all(x_P, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(gradients[0], ctx.group), None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _exchange(x_P: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Collectives end a compiled graph."""
    return cast(Tensor, _Exchange.apply(x_P, group))


def _all_to_all(x_P: Tensor, group: dist.ProcessGroup) -> Tensor:
    x_P = x_P.contiguous()
    received = torch.empty_like(x_P)
    dist.all_to_all_single(received, x_P, group=group)
    return received


class ContextParallel:
    """Installs itself into the blocks of a network; idle while the network does not train.

    What attention the blocks had computes here too, on the tokens or heads of one process.
    """

    def __init__(self, network: VideoDiT, group: dist.ProcessGroup) -> None:
        self._group = group
        self._size, self._rank = dist.get_world_size(group), dist.get_rank(group)
        self._num_image = 0  # of the whole, in the block that runs
        self._active = False
        blocks = [*network.double_blocks, *network.single_blocks]
        self._attend = cast("DoubleBlock | SingleBlock", blocks[0]).attention
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(self._enter_first if number == 0 else self._enter)
        blocks[-1].register_forward_hook(self._leave)
        # Collectives end a compiled graph; the attention around them stays as it is.
        network.set_attention(torch.compiler.disable(self.attention))  # type: ignore[no-untyped-call]

    def _enter(self, block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give a block the positions of its own tokens."""
        self._active = block.training
        *states, vec_BD, rope, num_valid_B = args
        self._num_image = rope.cos_NE.shape[0]
        if not self._active:
            return args
        table = RopeTable(*(self._part(column, dim=0) for column in rope))
        return (*states, vec_BD, table, num_valid_B)

    def _enter_first(self, block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        image_BND, *rest = self._enter(block, args)
        return (self._part(image_BND, dim=1) if self._active else image_BND, *rest)

    def _leave(self, block: nn.Module, args: tuple[Any, ...], x_BND: Tensor) -> Tensor:
        del args
        if not block.training:
            return x_BND
        image_BND, text_BND = x_BND[:, : self._num_local], x_BND[:, self._num_local :]
        return torch.cat([self._gather(image_BND, dim=1), text_BND], dim=1)

    def attention(
        self, q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, num_valid_B: Tensor | None
    ) -> Tensor:
        """Full attention over the tokens of all processes, for this process's tokens."""
        if not self._active:
            return self._attend(q_BHNE, k_BHNE, v_BHNE, num_valid_B)
        num_local, num_image = self._num_local, self._num_image
        if q_BHNE.shape[1] % self._size:
            k_BHNE, v_BHNE = (
                torch.cat([self._gather(x[:, :, :num_local], dim=2), x[:, :, num_local:]], dim=2)
                for x in (k_BHNE, v_BHNE)
            )
            return self._attend(q_BHNE, k_BHNE, v_BHNE, num_valid_B)
        q, k, v = (self._to_heads(x) for x in (q_BHNE, k_BHNE, v_BHNE))
        mixed = self._attend(q, k, v, num_valid_B)
        image, text = mixed[:, :, :num_image], mixed[:, :, num_image:]
        padded = F.pad(image, (0, 0, 0, num_local * self._size - num_image))
        own = _exchange(torch.stack(padded.chunk(self._size, dim=2)), self._group)
        return torch.cat([own.transpose(0, 1).flatten(1, 2), self._gather_heads(text)], dim=2)

    def _to_heads(self, x_BHNE: Tensor) -> Tensor:
        """All tokens of this process's heads, image first."""
        image, text = x_BHNE[:, :, : self._num_local], x_BHNE[:, :, self._num_local :]
        received = _exchange(torch.stack(image.chunk(self._size, dim=1)), self._group)
        whole = torch.cat(received.unbind(0), dim=2)[:, :, : self._num_image]
        return torch.cat([whole, text.chunk(self._size, dim=1)[self._rank]], dim=2)

    @property
    def _num_local(self) -> int:
        return -(-self._num_image // self._size)

    def _part(self, x: Tensor, dim: int) -> Tensor:
        """The own part of the image tokens; zeros fill up the last one.

        Contiguous, as the later blocks get theirs: a compiled block is not compiled again.
        """
        missing = self._num_local * self._size - self._num_image
        padding = [0, 0] * (x.ndim - 1 - dim) + [0, missing]
        return F.pad(x, padding).chunk(self._size, dim=dim)[self._rank].contiguous()

    def _gather(self, x: Tensor, dim: int) -> Tensor:
        """The image tokens of all processes, without the padding."""
        return self._collect(x, dim).narrow(dim, 0, self._num_image)

    def _gather_heads(self, x_BHNE: Tensor) -> Tensor:
        return self._collect(x_BHNE, 1)

    def _collect(self, x: Tensor, dim: int) -> Tensor:
        copies = x.unsqueeze(0).expand(self._size, *x.shape)
        received = _exchange(copies, self._group)
        return torch.cat(received.unbind(0), dim=dim)
