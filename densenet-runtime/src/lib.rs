//! What `densenet!` networks run on.

pub use densenet_plan as plan;
