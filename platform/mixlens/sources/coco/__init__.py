"""Photographs with COCO annotations: where they are, what is known of them, what is asked."""
