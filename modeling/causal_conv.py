"""3D convolution that sees the present and the past, never the future.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from torch import Tensor, nn

from modeling.vae_operations import PLAIN_VAE, Sizes, VaeOperations


class CausalConv3d(nn.Module):
    """Output frame t depends on input frames <= t * stride only. Borders repeat the edge values.

    The first frame is repeated into the past, so one image is a clip of one frame, and
    stride (2, 2, 2) takes 2n + 1 frames to n + 1. Source: MAGVIT-v2, arXiv:2310.05737.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_THW: Sizes = (3, 3, 3),
        *,
        stride_THW: Sizes = (1, 1, 1),
    ) -> None:
        super().__init__()
        t, h, w = kernel_THW
        if h % 2 == 0 or w % 2 == 0:
            raise ValueError(f"height and width of the kernel must be odd, got {kernel_THW}")
        self.operations: VaeOperations = PLAIN_VAE
        self.padding_THW = (t - 1, h // 2, w // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_THW, stride=stride_THW)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        op = self.operations
        return op.convolve(self.conv, op.pad(x_BCTHW, self.padding_THW))

    def of_normed(self, norm: nn.GroupNorm, x_BCTHW: Tensor) -> Tensor:
        """Of SiLU(norm(x))."""
        op = self.operations
        return op.convolve(self.conv, op.norm_silu_pad(norm, x_BCTHW, self.padding_THW))

    def of_enlarged(self, x_BCTHW: Tensor, factor_THW: Sizes) -> Tensor:
        """Of x enlarged by repetition, its first frame in space alone."""
        op = self.operations
        return op.convolve(self.conv, op.enlarge_pad(x_BCTHW, factor_THW, self.padding_THW))
