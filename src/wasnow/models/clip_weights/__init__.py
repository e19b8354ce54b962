"""Published CLIP weights: downloaded on request, checked, converted once, kept in a cache.

    wasnow weights get NAME ─ download ─┐
    wasnow weights get --from FILE ─────┴─ size, digest ─ layouts ─ Clip ─> CACHE/weights/NAME.safetensors
                                                       first difference named      header: sizes, activation, source

Three layouts are supported: that of open_clip (RemoteCLIP, GeoRSCLIP), OpenAI's, which has the same names, and that of
Hugging Face. Sizes come from the shapes. What the shapes do not determine comes from a description beside the file
(``config.json``, ``open_clip_config.json``), from the list of known weights, or from an option; it is never guessed. No
code in a file is executed.
"""
