"""What the exported model's card says that only the user knows."""

from __future__ import annotations

from advloop.params.section import Section


class CardParams(Section):
    model_license: str | None  # an identifier of the hub, such as apache-2.0; None: not stated
    data_license: str | None  # None: not stated, or that of the embedded images
