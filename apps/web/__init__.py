"""The web app beside this file, as the package ``lavit_edge.web``: an installed lavit-edge brings it along."""
