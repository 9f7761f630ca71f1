"""Container images without a Docker engine and without an image registry.

mmdebstrap makes the base, buildah builds the same Dockerfiles that `docker build` takes, and the result is an OCI
archive in the cache, named by the hash of all that it is made from. `ensure_image(settings, name)` is what other code
calls; `python -m dev.images build engine` does it by hand.
"""

from dev.images.build import ensure_image
from dev.images.recipes import IMAGES, image_hash

__all__ = ["IMAGES", "ensure_image", "image_hash"]
