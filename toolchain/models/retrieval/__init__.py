"""Text-image retrieval by late interaction: modes, scores and towers.

Liu, Yu, Li, Inflate and Shrink, EMNLP 2021. Each side is encoded alone to unit vectors, and a text
meets an image only in their products.
"""
