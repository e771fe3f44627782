//! Adapters: the two seams' implementations. They never import each other.
