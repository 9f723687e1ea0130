"""A vision-language policy behind FastAPI as a tutorial shows it: transformers' `generate` in the handler.

`python -m benchmarks.servers.tutorial_http PORT MODEL_FOLDER`. A handler that is a plain function runs in a thread of
FastAPI's pool, so that as many requests generate at the same time as clients ask. The prompt is rayward's.
"""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

from benchmarks.servers.process import THREADS
from deployments.acting.arm.prompt import arm_turns
from deployments.protocol.act import Observation


class Question(BaseModel):
    """`image`: an encoded picture in base64. `new_tokens`: length of the answer, so that both sides write as much."""

    image: str
    instruction: str
    new_tokens: int


def app(folder: str) -> FastAPI:
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    served = FastAPI()

    @served.post("/predict")
    def predict(question: Question) -> dict[str, str]:
        image = Image.open(io.BytesIO(base64.b64decode(question.image))).convert("RGB")
        prompt = processor.apply_chat_template(messages(image, question.instruction), add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[image], return_tensors="pt")
        tokens = model.generate(
            **inputs,
            do_sample=True,
            temperature=0.7,
            min_new_tokens=question.new_tokens,
            max_new_tokens=question.new_tokens,
        )
        answer = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        return {"answer": answer}

    return served


def messages(image: Image.Image, instruction: str) -> list[dict[str, Any]]:
    """Text and picture in the order in which rayward shows them."""
    turns = arm_turns(Observation((np.asarray(image),), instruction), history=[])
    return [
        {
            "role": turn.role,
            "content": [*({"type": "image"} for _ in turn.images), {"type": "text", "text": turn.text}],
        }
        for turn in turns
    ]


def main() -> None:
    port, folder = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(THREADS)
    uvicorn.run(app(folder), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    main()
