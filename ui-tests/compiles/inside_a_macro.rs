//! A spec may come out of another macro.

macro_rules! network {
    ($(#[$attribute:meta])* $visibility:vis $name:ident, $blocks:expr, $k:literal, $classes:expr) => {
        densenet_runtime::densenet! {
            $(#[$attribute])*
            $visibility $name { blocks: $blocks, k: $k, classes: $classes }
        }
    };
}

network!(
    /// Public.
    pub Public, [2, 2], 4, 7
);
network!(Private, [2, 2], 8, ["cat", "dog"]);

fn main() {
    assert!(Public::PARAMETERS < Private::PARAMETERS);
}
