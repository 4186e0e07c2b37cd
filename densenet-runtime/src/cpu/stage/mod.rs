//! The stages of a network, forward and back.

pub(crate) mod block;
pub(crate) mod head;
pub(crate) mod stem;
pub(crate) mod transition;
