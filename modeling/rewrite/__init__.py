"""A user's prompt to the structured caption that the DiT was trained on.

HunyuanVideo (arXiv 2412.03603, section 4.5) rewrites prompts with a large language model: in any
language, simpler terms, one structure, a second look that compares request and rewrite, and a
LoRA fine-tune on good pairs. Its prompts and pairs are not public; those here are ours.
"""
