"""From a window to the body of a chat request, in the form that OpenAI-compatible servers share."""

import base64
from typing import Any

import numpy as np

from pipeline.caption.answer import answer_schema, longest_answer
from pipeline.caption.backend import WindowRequest
from pipeline.caption.config import EndpointConfig, VlmConfig
from pipeline.caption.prompt import frame_line, instructions, request_line, video_line
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_jpeg, encode_mp4, frame_rate

CONSTRAINTS = ("json_schema", "plain_schema", "json_object", "prompt")  # from strict to none


def chat_body(
    request: WindowRequest,
    config: VlmConfig,
    endpoint: EndpointConfig,
    *,
    constraint: str,
    seed: int,
    temperature: float,
) -> dict[str, Any]:
    """The instructions come first and are equal for every clip; then pictures, then the tag."""
    content = [_text(instructions(config))]
    content += _video(request) if _as_video(request, endpoint) else _images(request, config)
    content.append(_text(request_line(request.tag)))
    sampling = config.sampling
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": sampling.max_tokens or longest_answer(config),
        "temperature": temperature,
        "top_p": sampling.top_p,
        "seed": seed,
    }
    if (wanted := _response_format(config, request.tag, constraint)) is not None:
        body["response_format"] = wanted
    return body


def probe_body(endpoint: EndpointConfig, *, with_picture: bool) -> dict[str, Any]:
    """One token about a gray picture or about none. A server that sees counts the picture."""
    content = [_text("Hello.")]
    if with_picture:
        gray = np.full((56, 56, 3), 128, np.uint8)
        content.append(_image(encode_jpeg(gray, EncodeConfig())))
    return {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
    }


def _response_format(config: VlmConfig, tag: str, constraint: str) -> dict[str, Any] | None:
    if constraint == "prompt":
        return None
    if constraint == "json_object":
        return {"type": "json_object"}
    schema = answer_schema(
        config, tag, detail="plain" if constraint == "plain_schema" else "lengths"
    )
    named = {"name": "structured_caption", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _as_video(request: WindowRequest, endpoint: EndpointConfig) -> bool:
    return endpoint.media == "video" and len(request.times_s) > 1


def _images(request: WindowRequest, config: VlmConfig) -> list[dict[str, Any]]:
    encode = EncodeConfig(jpeg_quality=config.frames.jpeg_quality)
    parts = []
    for number, image in enumerate(request.frames_THWC):
        parts.append(_text(frame_line(number + 1, request.times_s[number])))
        parts.append(_image(encode_jpeg(image, encode)))
    return parts


def _video(request: WindowRequest) -> list[dict[str, Any]]:
    """H.264 in MP4 of exactly the budget's frames, at the rate at which they were taken."""
    times, frames = request.times_s, request.frames_THWC
    rate = frame_rate((len(times) - 1) / (times[-1] - times[0]))
    size_HW = (max(2, frames.shape[1] // 2 * 2), max(2, frames.shape[2] // 2 * 2))
    data = encode_mp4(iter(frames), size_HW, rate, len(frames), EncodeConfig())
    url = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    line = video_line(len(times), times[0], times[-1])
    return [_text(line), {"type": "video_url", "video_url": {"url": url}}]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(jpeg: bytes) -> dict[str, Any]:
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
