//! A spec may come out of another macro.

macro_rules! network {
    ($(#[$attribute:meta])* $visibility:vis $name:ident, $k:literal, $classes:expr) => {
        densenet_runtime::densenet! {
            $(#[$attribute])*
            $visibility $name { blocks: [2, 2], k: $k, classes: $classes }
        }
    };
}

network!(
    /// Public.
    pub Public, 4, 7
);
network!(Private, 8, 9);

fn main() {
    assert!(Public::PARAMETERS < Private::PARAMETERS);
}
