//! Watchers, and who is told of what (skeleton).
