"""The Triton kernels as the operations of a block: torch.compile keeps them as they are."""

from modeling.block_operations import BlockOperations
from modeling.kernels.head_operations import join_streams, turn_heads
from modeling.kernels.row_operations import gated_add, gated_add_norm, norm_modulate

FUSED = BlockOperations(norm_modulate, gated_add, gated_add_norm, turn_heads, join_streams)
